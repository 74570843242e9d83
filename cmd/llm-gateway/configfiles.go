package main

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
)

// fileState is what a file of the configuration held at one moment.
type fileState struct {
	digest  [sha256.Size]byte
	missing bool
	blank   bool   // nothing but white space in it
	failed  string // why it cannot be read
}

// fileStates are the files that a configuration is read from, by path. They are
// looked at by path and content: editors, package managers and Kubernetes
// replace files, or the links that lead to them, rather than write into them.
type fileStates map[string]fileState

// lookAtFiles looks at every file that the sources name now: the YAML file,
// .env, and the files of secrets.
func lookAtFiles(src sources) fileStates {
	env, _ := environment(src.dir, src.env) // what is wrong with it is told by whoever loads it
	states := fileStates{}
	see := func(path string) {
		if path != "" {
			states[path] = lookAtFile(path)
		}
	}
	see(filepath.Join(src.dir, dotEnvName))
	see(src.yamlPath(env))
	for _, s := range settings() {
		if s.secret {
			see(env[s.env+"_FILE"].text)
		}
	}
	return states
}

func lookAtFile(path string) fileState {
	info, err := os.Stat(path)
	if err == nil && !info.Mode().IsRegular() {
		// A pipe is read once; looking at it would take what is for somebody else.
		return fileState{failed: "it is not a regular file"}
	}
	content, err := readSmall(path)
	if err != nil {
		return fileState{missing: errors.Is(err, fs.ErrNotExist), failed: err.Error()}
	}
	return fileState{digest: sha256.Sum256(content), blank: len(bytes.TrimSpace(content)) == 0}
}

// lost names the files that held something when the configuration in force was
// read and hold nothing now, one line each. A gateway may be started without
// them, but in a running one a file that is gone, or was cut to nothing by a
// full disk, is taken for an accident: its limits would silently be the defaults.
func (now fileStates) lost(before fileStates) (problems mistakes) {
	for _, path := range slices.Sorted(maps.Keys(now)) {
		is, was := now[path], before[path]
		if _, known := before[path]; !known || was.missing || was.blank || was.failed != "" {
			continue
		}
		switch {
		case is.missing:
			problems = append(problems, fmt.Sprintf("%s is gone: put it back, or restart to do without it", path))
		case is.blank:
			problems = append(problems, fmt.Sprintf("%s is empty: write the settings into it, or restart to do without them", path))
		}
	}
	return problems
}

// unusable names the files that can only be read once, at the start.
func (now fileStates) unusable() (problems mistakes) {
	for _, path := range slices.Sorted(maps.Keys(now)) {
		if s := now[path]; s.failed == "it is not a regular file" {
			problems = append(problems, path+" is not a regular file and cannot be read again: restart instead")
		}
	}
	return problems
}
