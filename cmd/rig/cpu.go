package rig

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Load is what a process tree has used so far.
type Load struct {
	CPU       time.Duration // user and system time of the living processes and their ended, waited-for children
	RSS       int64         // resident memory in bytes, now
	Processes int
	Threads   int
}

// ticksPerSecond is USER_HZ, which Linux fixes at 100 for /proc on every
// architecture (proc_pid_stat(5), "utime").
const ticksPerSecond = 100

// Tree reads the load of a process and all its descendants from /proc.
func Tree(root int) (Load, error) {
	all, err := readAll()
	if err != nil {
		return Load{}, err
	}
	if _, ok := all[root]; !ok {
		return Load{}, fmt.Errorf("read load: no process %d", root)
	}
	var out Load
	for pid := range all {
		if !descends(all, pid, root) {
			continue
		}
		p := all[pid]
		out.CPU += time.Duration(p.ticks) * time.Second / ticksPerSecond
		out.RSS += p.pages * int64(os.Getpagesize())
		out.Threads += p.threads
		out.Processes++
	}
	return out, nil
}

// Children returns the direct children of a process, for example the Envoy of
// an `up`.
func Children(parent int) ([]int, error) {
	all, err := readAll()
	if err != nil {
		return nil, err
	}
	var out []int
	for pid, p := range all {
		if p.parent == parent {
			out = append(out, pid)
		}
	}
	return out, nil
}

// Command is a process's command line, arguments joined by spaces; "" when it
// is gone.
func Command(pid int) string {
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "cmdline"))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(strings.ReplaceAll(string(b), "\x00", " "))
}

type procStat struct {
	parent, threads int
	ticks, pages    int64
}

func descends(all map[int]procStat, pid, root int) bool {
	for range all { // no chain of parents is longer
		if pid == root {
			return true
		}
		p, ok := all[pid]
		if !ok {
			return false
		}
		pid = p.parent
	}
	return false
}

func readAll() (map[int]procStat, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("read load: %w", err)
	}
	out := map[int]procStat{}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		b, err := os.ReadFile(filepath.Join("/proc", e.Name(), "stat"))
		if err != nil {
			continue // ended meanwhile
		}
		if p, ok := parseStat(string(b)); ok {
			out[pid] = p
		}
	}
	return out, nil
}

// stopped tells whether a process is in state T, or gone.
func stopped(pid int) bool {
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return true
	}
	_, rest, _ := strings.Cut(string(b[strings.LastIndexByte(string(b), ')')+1:]), " ")
	return strings.HasPrefix(rest, "T")
}

// parseStat reads the fields after the command name, which is the only one
// that may hold spaces and brackets (proc_pid_stat(5)).
func parseStat(s string) (procStat, bool) {
	i := strings.LastIndexByte(s, ')')
	if i < 0 {
		return procStat{}, false
	}
	f := strings.Fields(s[i+1:]) // f[0] is field 3, the state
	if len(f) < 22 {
		return procStat{}, false
	}
	var n [22]int64
	for _, k := range []int{1, 11, 12, 13, 14, 17, 21} {
		v, err := strconv.ParseInt(f[k], 10, 64)
		if err != nil {
			return procStat{}, false
		}
		n[k] = v
	}
	return procStat{
		parent: int(n[1]), threads: int(n[17]),
		ticks: n[11] + n[12] + n[13] + n[14], pages: n[21],
	}, true
}
