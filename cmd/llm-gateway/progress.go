package main

import (
	"fmt"
	"io"
	"unicode/utf8"

	"github.com/mattn/go-isatty"
)

// progressLine tells a person at a terminal how far long work is: one line that
// is written over, and nothing at all for anybody else.
type progressLine struct {
	to           io.Writer // nil: nobody watches
	label, after string    // of the part that is counted, and of what follows it
	shown        string    // what stands in the line
}

// progress begins a line on stderr, when that is a terminal on which lines can be
// written over. before names what comes ahead of the counted part, after what
// follows; "" is nothing that takes long.
func (a *app) progress(before, label, after string) *progressLine {
	p := &progressLine{label: label, after: after}
	if !a.json && a.getenv("TERM") != "dumb" && isTerminal(a.stderr) {
		p.to = a.stderr
	}
	if before != "" {
		p.show(before + " …")
	}
	return p
}

// isTerminal says whether w is written to a terminal.
func isTerminal(w io.Writer) bool {
	f, ok := w.(interface{ Fd() uintptr })
	return ok && isatty.IsTerminal(f.Fd())
}

func (p *progressLine) at(done, total int64) {
	switch {
	case total <= 0:
	case done >= total && p.after != "":
		p.show(p.after + " …")
	default:
		p.show(fmt.Sprintf("%s %3d %%", p.label, min(100, done*100/total)))
	}
}

// show writes a text over the one that stands there, and is silent when it is
// the same. It needs no control sequences, only the carriage return.
func (p *progressLine) show(text string) {
	if p.to == nil || text == p.shown {
		return
	}
	rest := max(0, utf8.RuneCountInString(p.shown)-utf8.RuneCountInString(text))
	p.shown = text
	_, _ = fmt.Fprintf(p.to, "\r%s%*s", text, rest, "")
}

// end leaves the line: what is written next begins a new one.
func (p *progressLine) end() {
	if p.shown != "" {
		p.shown = ""
		_, _ = fmt.Fprintln(p.to)
	}
}
