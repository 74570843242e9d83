package billing

import (
	"errors"
	"hash/crc32"
	"strings"
	"testing"
)

func TestNewSecretsAreWellFormed(t *testing.T) {
	seen := map[string]bool{}
	for range 1000 {
		s, err := NewSecret()
		if err != nil {
			t.Fatal(err)
		}
		if len(s) != 45 || !strings.HasPrefix(s, "sk-lgw_") || strings.Trim(s[7:], base62) != "" || !crcMatches(s) || !plausible(s) || seen[s] {
			t.Fatalf("malformed or repeated secret of %d characters", len(s))
		}
		seen[s] = true
	}
}

// crcMatches reads the checksum as a scanner would.
func crcMatches(s string) bool {
	n := uint64(0)
	for _, c := range s[39:] {
		n = n*62 + uint64(strings.IndexRune(base62, c))
	}
	return n == uint64(crc32.ChecksumIEEE([]byte(s[:39])))
}

func TestImplausibleSecretsAreNotLookedUp(t *testing.T) {
	good, err := NewSecret()
	if err != nil {
		t.Fatal(err)
	}
	o := options(t.TempDir(), newClock(testNow))
	b := openBook(t, o)
	changed := []byte(good)
	changed[10] = base62[(strings.IndexByte(base62, changed[10])+1)%62]
	for name, s := range map[string]string{
		"empty": "", "space": "sk-a b", "control": "sk-a\x01", "long": strings.Repeat("x", 257),
		"short": good[:44], "longer": good + "0", "checksum": string(changed), "prefix": secretPrefix,
	} {
		if plausible(s) {
			t.Errorf("%s: worth a look-up", name)
		}
		if _, err := b.Lookup(s); !errors.Is(err, ErrUnknownKey) {
			t.Errorf("%s: %v, want ErrUnknownKey", name, err)
		}
	}
	if _, err := b.Lookup(good); !errors.Is(err, ErrUnknownKey) {
		t.Errorf("unknown: %v, want ErrUnknownKey", err)
	}
	if !plausible(strings.Repeat("x", 256)) {
		t.Error("256 bytes are refused")
	}
}

func TestDisplayGivesNoShortSecretAway(t *testing.T) {
	for secret, want := range map[string]string{
		"sk-test-0123456789abcde":         "", // 23 characters
		"sk-test-0123456789abcdef":        "sk-…cdef",
		"0123456789abcdef0123456789abcd":  "…abcd",
		"sk-lgw_0123456789abcdef01234567": "sk-lgw_…4567",
	} {
		if got := display(secret); got != want {
			t.Errorf("display is %q, want %q", got, want)
		}
	}
}

func TestIdsSortByTime(t *testing.T) {
	c := newClock(testNow)
	last := ""
	for range 100 {
		id, err := newKeyID(c.Now())
		if err != nil {
			t.Fatal(err)
		}
		if len(id) != 30 || id <= last || strings.Trim(id[4:], crockford) != "" {
			t.Fatalf("%s after %s", id, last)
		}
		u, err := newUUID(c.Now())
		if err != nil || u.Version() != 7 || u.String() < idFloor(c.Now()) {
			t.Fatalf("uuid %s: %v", u, err)
		}
		last = id
		c.Add(1e6)
	}
}

func TestLookupAllocatesNothing(t *testing.T) {
	o := options(t.TempDir(), newClock(testNow))
	_, secret := createKey(t, o, Limits{})
	b := openBook(t, o)
	if n := testing.AllocsPerRun(100, func() { _, _ = b.Lookup(secret) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}
