package ratelimit

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"go.uber.org/zap"
)

// How the windows of an epoch came about: the end of its marker.
const (
	fromHistory = ":history"
	fromMemory  = ":memory"
)

// sealSource sets the marker if the lock is still ours, and opens the lock.
const sealSource = `if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[3])
redis.call('DEL', KEYS[1])
return 1`

// repairSource removes the keys that are of another kind than ours, and then the marker as well.
const repairSource = `local removed = 0
for i, kind in ipairs({'string', 'zset', 'hash', 'hash', 'zset'}) do
  local found = redis.call('TYPE', KEYS[i]).ok
  if found ~= kind and found ~= 'none' then removed = removed + redis.call('DEL', KEYS[i]) end
end
if removed > 0 then redis.call('DEL', KEYS[1]) end
return removed`

func wrongType(err error) bool { return err != nil && strings.HasPrefix(err.Error(), "WRONGTYPE") }

// rebuild fills the windows of a Redis that has none of ours, or those of another life. One gateway
// does so at a time; the marker comes last.
func (l *Limiter) rebuild(ctx context.Context, id string) (string, error) {
	r := l.remote
	lock := r.prefix + "rebuild"
	mine, err := r.probe.SetNX(ctx, lock, r.me, lockFor).Result()
	if err != nil {
		return "", err
	}
	if !mine {
		return "", errBusy
	}
	if epoch, err := l.marked(ctx, id); err != nil || epoch != "" {
		return epoch, errors.Join(err, r.probe.Del(ctx, lock).Err())
	}
	epoch, err := l.rebuilt(ctx, id, lock)
	if err != nil && ctx.Err() == nil {
		_ = r.probe.Del(ctx, lock).Err() // or it ends by itself
	}
	return epoch, err
}

func (l *Limiter) rebuilt(ctx context.Context, id, lock string) (string, error) {
	r := l.remote
	epoch := id + ":" + r.me + strings.ToLower(rand.Text()[:8])
	past, usable := l.history(ctx)
	l.memory.tellAll(true) // by name, so that it counts once, whoever tells it
	if usable {
		epoch += fromHistory
		if err := l.replay(ctx, epoch, lock, past); err != nil {
			return "", err
		}
	} else {
		epoch += fromMemory
		if err := l.fill(ctx, epoch, true); err != nil {
			return "", err
		}
	}
	if err := l.flush(ctx, epoch); err != nil {
		return "", err
	}
	sealed, err := r.probe.Eval(ctx, sealSource, []string{lock, r.marker()}, r.me, epoch, l.markerFor().Milliseconds()).Int()
	if err != nil {
		return "", err
	}
	if sealed == 0 {
		return "", errBusy
	}
	l.o.Log.Info("rate limits: windows in Redis rebuilt", zap.Bool("from_books", usable), zap.Int("admissions", len(past)))
	return epoch, nil
}

// history asks the books; false when the gateways' own memory must do.
func (l *Limiter) history(ctx context.Context) ([]Past, bool) {
	if l.o.History == nil {
		l.o.Log.Warn("rate limits: no books to rebuild the windows in Redis from, only what gateways remember")
		return nil, false
	}
	past, err := l.o.History(ctx, l.o.Now().Add(-l.o.LongestWindow))
	if err != nil {
		l.o.Log.Warn("rate limits: windows in Redis are rebuilt from what gateways remember only", zap.Error(err))
		return nil, false
	}
	return past, true
}

// replay replaces the windows of every subject in the books.
func (l *Limiter) replay(ctx context.Context, epoch, lock string, past []Past) error {
	of := map[string][]put{}
	now := l.o.Now()
	for i, p := range past {
		if p.ID == "" {
			p.ID = fmt.Sprintf("%s-%d", l.remote.me, i)
		}
		age := max(0, now.Sub(p.At))
		of[p.Subject] = append(of[p.Subject], put{id: p.ID, age: int64(age), limits: p.Limits, tokens: p.Tokens, lease: leaseKeep})
	}
	for name, puts := range of {
		first := true
		for part := range slices.Chunk(puts, parcelSize) {
			spent := int64(l.o.Now().Sub(now))
			for i := range part {
				part[i].age += spent
			}
			err := l.remote.put(ctx, epoch, parcel{s: &subject{name: name}, puts: part}, first, loose{}, loose{})
			if err != nil {
				return err
			}
			first = false
		}
		if err := l.remote.probe.PExpire(ctx, lock, lockFor).Err(); err != nil {
			return err
		}
	}
	return nil
}

// fill adds what this process remembers to the windows in Redis, or puts it in their place.
func (l *Limiter) fill(ctx context.Context, epoch string, replace bool) error {
	for _, s := range l.memory.all() {
		requests, tokens := l.memory.dump(s)
		if len(requests.pieces) == 0 && len(tokens.pieces) == 0 && !replace {
			continue
		}
		if err := l.remote.put(ctx, epoch, parcel{s: s}, replace, requests, tokens); err != nil {
			return err
		}
	}
	return nil
}

// repair removes keys of ours that are something else than what we make, and with them the marker:
// what every gateway used of that subject is in none of them alone, so all windows are built anew.
func (l *Limiter) repair(ctx context.Context) error {
	broken := l.memory.takeBroken()
	if len(broken) == 0 {
		return nil
	}
	r := l.remote
	for _, s := range broken {
		keys := []string{r.marker(), r.key("requests", s), r.key("pieces", s), r.key("tokens", s), r.key("concurrent", s)}
		removed, err := r.probe.Eval(ctx, repairSource, keys).Int()
		if err != nil {
			return err
		}
		if removed > 0 {
			return errCold
		}
	}
	return nil
}

// breaks notes that Redis holds something else under a subject's name.
func (m *memory) breaks(name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.broken) < parcelSize {
		m.broken[name] = true
	}
	select {
	case m.journal.wake <- struct{}{}:
	default:
	}
}

func (m *memory) takeBroken() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	names := slices.Collect(maps.Keys(m.broken))
	clear(m.broken)
	return names
}

func (m *memory) all() []*subject {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := make([]*subject, 0, len(m.subjects))
	for _, s := range m.subjects {
		out = append(out, s)
	}
	return out
}

// dump is what a subject used, by age, without the operations that Redis will be told by name.
func (m *memory) dump(s *subject) (requests, tokens loose) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.clock()
	named := map[int]int64{}
	namedTokens := map[int64]int64{}
	for _, o := range s.pending {
		if o.gone {
			continue
		}
		if i, found := s.requests.find(o.place); found {
			named[i]++
		}
		namedTokens[o.piece] += o.tokens
	}
	requests.window, tokens.window = s.requestSpan.Window, s.tokensSpan.Window
	add := func(to *loose, at, n int64) {
		if age := now - at; n > 0 && age < int64(to.window) {
			to.pieces = append(to.pieces, piece{at: max(0, age), n: n})
		}
	}
	add(&requests, s.requests.lost, s.requests.losses)
	for i := range s.requests.runs.len() {
		add(&requests, s.requests.runs.at(i).at, s.requests.runs.at(i).n-named[i])
	}
	add(&tokens, s.tokens.lost.at, s.tokens.lost.n)
	for _, p := range s.tokens.pieces {
		add(&tokens, p.at, p.n-namedTokens[p.at])
	}
	return requests, tokens
}

// tellID tells Redis of one admission again.
func (m *memory) tellID(id string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if o := m.ops[id]; o != nil {
		m.tell(o)
	}
}

// ask is the time now, and what the same call to Redis should tell of the subject.
func (m *memory) ask(a *Ask) (int64, parcel) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.clock()
	if s := m.subjects[a.Subject]; s != nil && len(s.pending) > 0 {
		return now, m.pack(s, now, askedSize)
	}
	return now, parcel{}
}

func (m *memory) droppedOps() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.journal.dropped
}
