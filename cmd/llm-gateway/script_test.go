package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/MaksimVF/llm-gateway/billing"
)

// TestMain makes this binary, under other names, the programs of the scripts:
// the gateway itself, two that do to the books what no command does, and a
// listener that is no gateway.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"llm-gateway": main,
		"books-use":   func() { exitOn(useBooks(os.Args[1:])) },
		"books-sql":   func() { exitOn(tamper(os.Args[1:])) },
		"answer-all":  func() { exitOn(answerAll(os.Args[1:])) },
	})
}

// TestScripts runs every command the way a person does, in an environment that
// holds nothing of this machine's but the programs above.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			programs, _, _ := strings.Cut(env.Getenv("PATH"), string(os.PathListSeparator))
			env.Setenv("PATH", programs)
			env.Setenv("HOME", filepath.Join(env.WorkDir, "home"))
			free, err := freeAddress()
			env.Setenv("FREE", free) // an address to listen on
			return err
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"json":     compareJSON,
			"json-env": takeJSON,
			"code":     compareCode,
			"until":    untilMatches,
		},
	})
}

// freeAddress finds a loopback address that nobody listens on at the moment.
func freeAddress() (string, error) {
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

func exitOn(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// useBooks DATA SECRET DAY MODEL PROMPT COMPLETION PROVENANCE charges a request
// of that day; with the provenance "hold" the request stays open.
func useBooks(args []string) (err error) {
	if len(args) != 7 {
		return errors.New("books-use DATA SECRET DAY MODEL PROMPT COMPLETION PROVENANCE")
	}
	day, err := time.Parse(time.DateOnly, args[2])
	if err != nil {
		return err
	}
	prompt, err := strconv.ParseInt(args[4], 10, 64)
	if err != nil {
		return err
	}
	completion, err := strconv.ParseInt(args[5], 10, 64)
	if err != nil {
		return err
	}
	ctx := context.Background()
	o := Default().billingOptions(nil)
	o.DataDir, o.Now = args[0], func() time.Time { return day.Add(12 * time.Hour) }
	book, err := billing.Open(ctx, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, book.Close(ctx)) }()
	key, err := book.Lookup(args[1])
	if err != nil {
		return err
	}
	hold, err := book.Reserve(ctx, billing.HoldRequest{
		KeyID: key.ID, Model: args[3], Endpoint: "/v1/chat/completions",
		PromptBound: prompt, PromptEstimate: prompt, Ceiling: completion, Choices: 1,
	})
	if err != nil || args[6] == "hold" {
		return err
	}
	return book.Settle(ctx, hold.ID, billing.Outcome{
		Prompt: prompt, Completion: completion, Provenance: billing.Provenance(args[6]),
	})
}

// tamper FILE STATEMENT changes the database behind the books' back.
func tamper(args []string) error {
	if len(args) != 2 {
		return errors.New("books-sql FILE STATEMENT")
	}
	db, err := sql.Open("sqlite", args[0])
	if err != nil {
		return err
	}
	_, err = db.Exec(args[1])
	return errors.Join(err, db.Close())
}

// answerAll ADDRESS STATUS BODY gives that answer to every request.
func answerAll(args []string) error {
	if len(args) != 3 {
		return errors.New("answer-all ADDRESS STATUS BODY")
	}
	status, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	server := &http.Server{Addr: args[0], ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, args[2]) // a client that left has no use for it
	})}
	return server.ListenAndServe()
}

// document reads the last stdout, which must be one JSON document and nothing
// else, and returns the value at a dotted path.
func document(ts *testscript.TestScript, path string) any {
	decoder := json.NewDecoder(strings.NewReader(ts.ReadFile("stdout")))
	decoder.UseNumber()
	var value any
	ts.Check(decoder.Decode(&value))
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		ts.Fatalf("more than one JSON document on stdout")
	}
	for step := range strings.SplitSeq(path, ".") {
		switch v := value.(type) {
		case map[string]any:
			next, ok := v[step]
			if !ok {
				ts.Fatalf("no %s in %s", step, path)
			}
			value = next
		case []any:
			i, err := strconv.Atoi(step)
			if step == "length" {
				value = len(v)
				continue
			}
			if err != nil || i >= len(v) {
				ts.Fatalf("no %s in %s", step, path)
			}
			value = v[i]
		default:
			ts.Fatalf("%s: nothing below %v", path, v)
		}
	}
	return value
}

// compareJSON: json PATH VALUE; "! json PATH VALUE" wants another value.
func compareJSON(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: json PATH VALUE")
	}
	value := document(ts, args[0])
	got := fmt.Sprint(value)
	switch value.(type) {
	case map[string]any, []any:
		text, err := json.Marshal(value)
		ts.Check(err)
		got = string(text)
	}
	if (got == args[1]) == neg {
		ts.Fatalf("%s is %s", args[0], got)
	}
}

// takeJSON: json-env NAME PATH keeps a value for later lines.
func takeJSON(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: json-env NAME PATH")
	}
	ts.Setenv(args[0], fmt.Sprint(document(ts, args[1])))
}

// compareCode: code N PROGRAM ARGS... runs a program that must end with N.
func compareCode(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) < 2 {
		ts.Fatalf("usage: code N PROGRAM ARGS...")
	}
	err := ts.Exec(args[1], args[2:]...)
	got := 0
	if exit := (interface{ ExitCode() int })(nil); errors.As(err, &exit) {
		got = exit.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if strconv.Itoa(got) != args[0] {
		ts.Fatalf("exit code %d, want %s", got, args[0])
	}
}

// untilMatches: until PATTERN PROGRAM ARGS... runs a program again and again
// until it succeeds and PATTERN is in its stdout.
func untilMatches(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) < 2 {
		ts.Fatalf("usage: until PATTERN PROGRAM ARGS...")
	}
	pattern, err := regexp.Compile(args[0])
	ts.Check(err)
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if ts.Exec(args[1], args[2:]...) == nil && pattern.MatchString(ts.ReadFile("stdout")) {
			return
		}
		if time.Now().After(end) {
			ts.Fatalf("%q did not come", args[0])
		}
	}
}
