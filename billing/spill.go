package billing

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
)

// spill keeps settles durable while the database refuses writes: one JSON
// record a line, fsynced before its caller goes on, replayed at the next
// start, and cut to nothing when the database has them all.
type spill struct {
	late atomic.Int64 // records ever appended by this process

	mu      sync.Mutex // guards the file's content and pending
	file    *os.File
	size    int64
	written int64 // records written, in order
	pending map[*op]struct{}
	stuck   int64 // records that no commit will take: they stay for a person
	broken  error // after a failed fsync nothing about the file is known

	syncMu sync.Mutex
	synced int64 // records known to be on disk
}

// openSpill opens dir's spill file and returns the records in it.
func openSpill(dir string) (*spill, []entry, error) {
	path := filepath.Join(dir, spillFile)
	data, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, nil, err
	}
	records, whole, err := parseSpill(data)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", path, err)
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		return nil, nil, err
	}
	// A torn last line was never acknowledged; nothing may be appended to it.
	if err := file.Truncate(int64(whole)); err != nil {
		return nil, nil, errors.Join(err, file.Close())
	}
	return &spill{file: file, size: int64(whole), pending: map[*op]struct{}{}}, records, syncDir(dir)
}

// parseSpill reads records up to the last complete line.
func parseSpill(data []byte) (records []entry, whole int, err error) {
	for line := 1; ; line++ {
		end := bytes.IndexByte(data[whole:], '\n')
		if end < 0 {
			return records, whole, nil
		}
		var e entry
		if err := json.Unmarshal(data[whole:whole+end], &e); err != nil {
			return nil, 0, fmt.Errorf("line %d is damaged: %w", line, err)
		}
		records = append(records, e)
		whole += end + 1
	}
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// append makes o durable. It returns once the record is on disk, or the
// database has committed it meanwhile.
func (s *spill) append(o *op) error {
	line, err := json.Marshal(o.entry)
	if err != nil {
		return fmt.Errorf("spill: %w", err)
	}
	n, err := s.write(o, append(line, '\n'))
	if err == nil {
		err = s.sync(n)
	}
	if o.committed.Load() {
		s.settled(o) // whichever of the two came first, the record is let go
		return nil
	}
	if err != nil {
		return fmt.Errorf("spill: %w", err)
	}
	return nil
}

func (s *spill) write(o *op, line []byte) (n int64, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.broken != nil {
		return 0, s.broken
	}
	if _, ok := s.pending[o]; ok {
		return s.written, nil
	}
	if _, err := s.file.Write(line); err != nil {
		// Half a line would damage the ones after it.
		if cut := s.file.Truncate(s.size); cut != nil {
			s.broken = errors.Join(err, cut)
		}
		return 0, err
	}
	s.size += int64(len(line))
	s.written++
	s.late.Add(1)
	s.pending[o] = struct{}{}
	return s.written, nil
}

// sync returns when record n is on disk; callers that wait share one fsync.
func (s *spill) sync(n int64) error {
	s.syncMu.Lock()
	defer s.syncMu.Unlock()
	if s.synced >= n {
		return nil
	}
	s.mu.Lock()
	written, broken := s.written, s.broken
	s.mu.Unlock()
	if broken != nil {
		return broken
	}
	if err := s.file.Sync(); err != nil {
		s.mu.Lock()
		s.broken = err
		s.mu.Unlock()
		return err
	}
	s.synced = written
	return nil
}

// settled lets go of a record that the database has.
func (s *spill) settled(o *op) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.pending[o]; !ok {
		return
	}
	delete(s.pending, o)
	if len(s.pending) == 0 && s.stuck == 0 && s.broken == nil {
		// Not synced: a record that comes back after a crash is replayed to no effect.
		if err := s.file.Truncate(0); err == nil {
			s.size = 0
		}
	}
}

// replayed empties the file after a start has taken its records over. While
// some could not be, all stay: what was posted is posted once anyway.
func (s *spill) replayed(stuck int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stuck = int64(stuck)
	if stuck > 0 || s.size == 0 {
		return nil
	}
	s.size = 0
	return errors.Join(s.file.Truncate(0), s.file.Sync())
}

func (s *spill) depth() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return int64(len(s.pending)) + s.stuck
}

func (s *spill) close() error { return s.file.Close() }
