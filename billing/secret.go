package billing

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"hash"
	"hash/crc32"
	"strings"
	"sync"
)

const (
	secretPrefix   = "sk-lgw_"
	secretRandom   = 32 // base62 digits: 190 bits
	secretChecksum = 6  // base62 digits hold any CRC32
	secretLength   = len(secretPrefix) + secretRandom + secretChecksum
	secretMax      = 256 // bytes; longer credentials are refused unread
	displayMin     = 24  // shorter secrets would be given away by their last four

	base62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
)

// Digest kinds as stored beside each digest.
const (
	kindSHA256 = "sha256"
	kindHMAC   = "hmac-sha256"
)

// NewSecret mints a key's secret: "sk-lgw_", 32 random base62 digits, and six
// base62 digits of the CRC-32 (IEEE) of all before them, so that typing errors
// and guesses are refused without a look-up and scanners can verify finds offline.
func NewSecret() (string, error) {
	out := make([]byte, 0, secretLength)
	out = append(out, secretPrefix...)
	var pool [64]byte
	for len(out) < len(secretPrefix)+secretRandom {
		if _, err := rand.Read(pool[:]); err != nil {
			return "", fmt.Errorf("new secret: %w", err)
		}
		for _, c := range pool {
			// 248 = 4 x 62: above it a remainder would favour the first digits.
			if c < 248 && len(out) < len(secretPrefix)+secretRandom {
				out = append(out, base62[c%62])
			}
		}
	}
	sum := checksum(string(out))
	return string(append(out, sum[:]...)), nil
}

func checksum(body string) (out [secretChecksum]byte) {
	n := ^uint32(0)
	for i := range len(body) { // crc32.ChecksumIEEE wants a slice, which would be allocated
		n = crc32.IEEETable[byte(n&0xff)^body[i]] ^ n>>8
	}
	n = ^n
	for i := len(out) - 1; i >= 0; i-- {
		out[i] = base62[n%62]
		n /= 62
	}
	return out
}

// plausible says whether a presented credential is worth a look-up.
func plausible(secret string) bool {
	if secret == "" || len(secret) > secretMax {
		return false
	}
	for i := range len(secret) {
		if c := secret[i]; c <= ' ' || c == 0x7f {
			return false
		}
	}
	if !strings.HasPrefix(secret, secretPrefix) {
		return true
	}
	if len(secret) != secretLength {
		return false
	}
	sum := checksum(secret[:secretLength-secretChecksum])
	return secret[secretLength-secretChecksum:] == string(sum[:])
}

// display is what may be shown of a secret: its kind and its last four
// characters, and nothing of a short one.
func display(secret string) string {
	if len(secret) < displayMin {
		return ""
	}
	last := secret[len(secret)-4:]
	switch {
	case strings.HasPrefix(secret, secretPrefix):
		return secretPrefix + "…" + last
	case strings.HasPrefix(secret, "sk-"):
		return "sk-…" + last
	}
	return "…" + last
}

type digest [sha256.Size]byte

// digester turns secrets into digests. A fast hash is right for random
// secrets; the pepper protects imported ones that could be guessed.
type digester struct {
	pepper []byte
	macs   sync.Pool // of *mac: a keyed state is costlier than the hash
}

type mac struct {
	hash.Hash
	in  [secretMax]byte
	out [sha256.Size]byte
}

func newDigester(pepper []byte) *digester {
	d := &digester{pepper: append([]byte(nil), pepper...)}
	d.macs.New = func() any { return &mac{Hash: hmac.New(sha256.New, d.pepper)} }
	return d
}

// kind is the kind of digest that new keys get.
func (d *digester) kind() string {
	if len(d.pepper) > 0 {
		return kindHMAC
	}
	return kindSHA256
}

// keyed is the HMAC of a secret of at most secretMax bytes.
func (d *digester) keyed(secret string) digest {
	m := d.macs.Get().(*mac)
	m.Reset()
	n := copy(m.in[:], secret)
	_, _ = m.Write(m.in[:n]) // a hash takes everything
	m.Sum(m.out[:0])
	sum := digest(m.out)
	clear(m.in[:n])
	d.macs.Put(m)
	return sum
}

// plain is the SHA-256 of a secret of at most secretMax bytes.
func plain(secret string) digest {
	var in [secretMax]byte
	n := copy(in[:], secret)
	return sha256.Sum256(in[:n])
}

// of returns the digest that a new key gets.
func (d *digester) of(secret string) digest {
	if len(d.pepper) > 0 {
		return d.keyed(secret)
	}
	return plain(secret)
}

// all returns every digest under which a secret may be stored.
func (d *digester) all(secret string) []digest {
	if len(d.pepper) > 0 {
		return []digest{d.keyed(secret), plain(secret)}
	}
	return []digest{plain(secret)}
}

// check proves later that the same pepper is configured, without telling it.
func (d *digester) check() string {
	return fmt.Sprintf("%x", d.keyed("the pepper of these books"))
}
