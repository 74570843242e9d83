package main

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/MaksimVF/llm-gateway/billing"
)

// screen is a terminal whose window keeps everything that was written to it.
type screen struct {
	*os.File
	text func() string
}

func openScreen(t *testing.T) screen {
	t.Helper()
	master, slave := openPTY(t)
	var seen bytes.Buffer
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.Copy(&seen, master) // ends with EIO when the other side is closed
	}()
	return screen{File: slave, text: func() string {
		_ = slave.Close()
		<-done
		_ = master.Close()
		return seen.String()
	}}
}

// Progress and colours are for people at terminals, and only for those who have
// not asked for plain text.
func TestTerminal(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	c := Default()
	books, err := billing.OpenAdmin(t.Context(), c.billingOptions(nil))
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := books.CreateKey(t.Context(), billing.NewKey{Name: "Ann"}); err != nil {
		t.Fatal(err)
	}
	if err := books.Close(); err != nil {
		t.Fatal(err)
	}
	const packing, unpacking = "\rcopying the books …\rpacking 100 %", "\rchecking the books …"
	backup := "backup --path " + filepath.Join(dir, "books.zip")
	for _, x := range []struct {
		call, env          string
		terminalOfMessages bool
		stdout, stderr     string // that have to be there; "" in stderr = nothing
		colours            bool
	}{
		{call: backup, terminalOfMessages: true, stdout: "written", stderr: packing},
		{call: backup, stdout: "written"},
		{call: backup + " --json", terminalOfMessages: true, stdout: `"format"`},
		{call: backup, env: "TERM=dumb", terminalOfMessages: true, stdout: "written"},
		{call: backup, env: "NO_COLOR=1", terminalOfMessages: true, stdout: "written", stderr: packing},
		{call: "restore --path books.zip --data other", terminalOfMessages: true, stdout: "restored", stderr: unpacking},
		{call: "restore --path books.zip --data more", stdout: "restored"},
		{call: "restore --path books.zip --data json --json", terminalOfMessages: true, stdout: `"balanced"`},
		{call: "list-keys", stdout: "Ann", colours: true},
		{call: "list-keys", env: "NO_COLOR=1", stdout: "Ann"},
		{call: "list-keys", env: "NO_COLOR=", stdout: "Ann", colours: true}, // set, and empty
		{call: "list-keys", env: "TERM=dumb", stdout: "Ann"},
		{call: "list-keys --json", stdout: "Ann"},
		{call: "show-key --key none", terminalOfMessages: true, stderr: "no such key"},
	} {
		result := openScreen(t)
		messages := openScreen(t)
		var plain bytes.Buffer
		stderr := io.Writer(&plain)
		if x.terminalOfMessages {
			stderr = messages
		}
		run(t.Context(), strings.Fields(x.call), []string{x.env}, nil, result, stderr)
		out, said := result.text(), messages.text()+plain.String()
		if !strings.Contains(out, x.stdout) || x.stdout == "" && out != "" {
			t.Errorf("%s %s: stdout is %q, want %q", x.env, x.call, out, x.stdout)
		}
		if !strings.Contains(said, x.stderr) || x.stderr == "" && said != "" {
			t.Errorf("%s %s: stderr is %q, want %q", x.env, x.call, said, x.stderr)
		}
		if got := strings.Contains(out, "\x1b["); got != x.colours {
			t.Errorf("%s %s: colours %v, want %v in %q", x.env, x.call, got, x.colours, out)
		}
		if strings.Contains(said, "\x1b") {
			t.Errorf("%s %s: control sequences in %q", x.env, x.call, said)
		}
	}

	// Whoever redirects the results sees no colours in them.
	var plain bytes.Buffer
	run(t.Context(), []string{"list-keys"}, nil, nil, &plain, io.Discard)
	if !strings.Contains(plain.String(), "Ann") || strings.Contains(plain.String(), "\x1b") {
		t.Errorf("%q", plain.String())
	}
}
