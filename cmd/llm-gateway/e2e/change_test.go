//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/MaksimVF/llm-gateway/cmd/rig"
)

// What a gateway says to a key.
const (
	admitted = "200"
	unknown  = "403 invalid_api_key" // revoked and expired, too
	spent    = "429 insufficient_quota"
	later    = "503 gateway_unavailable" // nothing was decided
)

// inForce is how soon a gateway obeys a command that ended.
const inForce = time.Second

// answer is what one request with a key was told.
type answer struct {
	sent, ended time.Time
	told        string
}

// change is a command that turns what a key is told.
type change struct {
	kind     string
	from, to string
	began    time.Time // nothing may turn before
	done     time.Time // the command has ended: the promised second begins
}

// judge holds the answers that a key got one after another against the changes
// that were made, in their order. It returns for each how long after the
// command's end the first answer that obeyed had come; none is a problem. A
// request that was under way while time passed proves nothing about when it was
// decided, so one that disobeys is held against the moment it was sent.
func judge(answers []answer, changes []change) (took []time.Duration, problems []string) {
	at, obeyed, late := -1, true, false // -1: before the first change
	for i, a := range answers {
		for at+1 < len(changes) && !a.ended.Before(changes[at+1].began) {
			if !obeyed {
				problems = append(problems, fmt.Sprintf("%s: no answer obeyed before the next command", changes[at].kind))
			}
			at, obeyed, late = at+1, false, false
		}
		want := changes[0].from
		if at >= 0 {
			want = changes[at].to
		}
		switch {
		case a.told == want:
			if !obeyed {
				took = append(took, max(0, a.ended.Sub(changes[at].done)))
			}
			obeyed = true
		case at < 0:
			problems = append(problems, fmt.Sprintf("answer %d: %s before anything changed, want %s", i, a.told, want))
		case obeyed:
			problems = append(problems, fmt.Sprintf("%s: answer %d is %s after others had obeyed", changes[at].kind, i, a.told))
		case a.told != changes[at].from:
			problems = append(problems, fmt.Sprintf("%s: answer %d is %s, neither %s nor %s", changes[at].kind, i, a.told, changes[at].from, want))
		case !late && a.sent.After(changes[at].done.Add(inForce)):
			late = true
			problems = append(problems, fmt.Sprintf("%s: answer %d is %s, asked %s after the command", changes[at].kind, i, a.told, a.sent.Sub(changes[at].done)))
		}
	}
	if !obeyed || at+1 < len(changes) {
		problems = append(problems, "not every change was obeyed")
	}
	return took, problems
}

// TestJudge: the verdict about answers and changes knows every way to be wrong.
func TestJudge(t *testing.T) {
	zero := time.Unix(1000, 0)
	at := func(ms int) time.Time { return zero.Add(time.Duration(ms) * time.Millisecond) }
	told := func(ms int, what string) answer { return answer{at(ms), at(ms + 5), what} }
	raise := change{kind: "raise", from: spent, to: admitted, began: at(100), done: at(200)}
	revoke := change{kind: "revoke", from: admitted, to: unknown, began: at(3000), done: at(3100)}
	for name, c := range map[string]struct {
		answers []answer
		wrong   string
	}{
		"obeyed":            {[]answer{told(0, spent), told(150, spent), told(1150, spent), told(1190, admitted), told(3050, admitted), told(3200, unknown)}, ""},
		"obeyed early":      {[]answer{told(0, spent), told(110, admitted), told(3050, unknown)}, ""},
		"sent in time":      {[]answer{{at(1100), at(2500), spent}, told(2600, admitted), told(3200, unknown)}, ""},
		"too late":          {[]answer{told(0, spent), told(1250, spent), told(1300, admitted), told(3200, unknown)}, "asked 1.05s after"},
		"before":            {[]answer{told(0, admitted), told(210, admitted), told(3200, unknown)}, "before anything"},
		"back again":        {[]answer{told(300, admitted), told(400, spent), told(500, admitted), told(3200, unknown)}, "after others"},
		"alive again":       {[]answer{told(300, admitted), told(3200, unknown), told(3300, admitted)}, "after others"},
		"something else":    {[]answer{told(300, "503 upstream_error"), told(400, admitted), told(3200, unknown)}, "neither"},
		"never":             {[]answer{told(300, admitted), told(3200, admitted)}, "not every change"},
		"never, and others": {[]answer{told(300, spent), told(3200, unknown)}, "before the next"},
		"nobody asked":      {[]answer{told(300, admitted)}, "not every change"},
	} {
		took, problems := judge(c.answers, []change{raise, revoke})
		if got := strings.Join(problems, "; "); (got == "") != (c.wrong == "") || !strings.Contains(got, c.wrong) {
			t.Errorf("%s: %q, want %q", name, got, c.wrong)
		}
		if name == "obeyed" && (len(took) != 2 || took[0] != 995*time.Millisecond || took[1] != 105*time.Millisecond) {
			t.Errorf("%s: %v", name, took)
		}
	}
}

// asker asks one gateway with one key, again and again.
type asker struct {
	stop context.CancelFunc
	done chan struct{} // closed when nothing is asked any more

	mu      sync.Mutex
	pause   time.Duration
	answers []answer      // that decided something
	away    int           // that did not
	changed chan struct{} // closed and replaced at every answer
}

// The figures of an asker's request.
const askerPrompt, askerCompletion = 3, 2

// ask begins to ask every 20 ms.
func ask(t *testing.T, client *rig.Client, k rig.NewKey) *asker {
	a := &asker{done: make(chan struct{}), changed: make(chan struct{}), pause: 20 * time.Millisecond}
	going, stop := context.WithCancel(context.Background())
	a.stop = stop
	t.Cleanup(stop)
	body := rig.Chat{Model: "asker", MaxTokens: askerCompletion, Script: rig.Script{Prompt: askerPrompt, Completion: askerCompletion}}.Body()
	go func() {
		defer close(a.done)
		for {
			ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
			r := client.Do(ctx, rig.Request{Key: k.Key, Body: body})
			cancel()
			told := fmt.Sprint(r.Status)
			if p, ok := r.Problem(); ok {
				told += " " + p.Error.Code
			}
			a.mu.Lock()
			if told == later {
				a.away++
			} else {
				a.answers = append(a.answers, answer{r.Started, r.Ended, told})
			}
			close(a.changed)
			a.changed = make(chan struct{})
			pause := a.pause
			a.mu.Unlock()
			select {
			case <-going.Done():
				return
			case <-time.After(pause):
			}
		}
	}()
	return a
}

// settled waits until the last few answers were all the wanted one; how long
// that took is judged at the end.
func (a *asker) settled(want string) {
	const enough = 8
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); {
		a.mu.Lock()
		n, changed := len(a.answers), a.changed
		same := n >= enough
		for _, last := range a.answers[max(0, n-enough):] {
			same = same && last.told == want
		}
		a.mu.Unlock()
		if same {
			return
		}
		select {
		case <-changed:
		case <-a.done:
			return
		}
	}
}

// slower asks on, so seldom that it is no load.
func (a *asker) slower() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.pause = 300 * time.Millisecond
}

// end asks no more and returns what was told.
func (a *asker) end() []answer {
	a.stop()
	<-a.done
	return a.answers
}
