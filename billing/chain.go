package billing

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/google/uuid"
)

// The chain makes a charge that was changed, removed or added by a stranger
// visible. Each transaction that posts charges adds a link: it seals each of
// them by its id and the SHA-256 of its row, and all of them with the link
// before by a SHA-256. Who has the database can make a new chain, of course; he
// cannot make one that ends where a checkpoint that was kept elsewhere says.

// sqliteWriter names the chain of books in SQLite, which have one writer.
// Gateways that share PostgreSQL have one each, by the name of the replica.
const sqliteWriter = "gateway"

const (
	hashSize = sha256.Size
	sealSize = len(uuid.UUID{}) + hashSize
)

// seal is a charge's id and the digest of its row.
type seal [sealSize]byte

func (s *seal) id() uuid.UUID { return uuid.UUID(s[:len(uuid.UUID{})]) }

// seal fails for an id that is no UUID, which the books never mint.
func (c *charge) seal() (s seal, err error) {
	id, err := uuid.Parse(c.ID)
	if err != nil {
		return s, fmt.Errorf("seal: the id of a charge is no UUID: %w", err)
	}
	digest := c.digest()
	copy(s[copy(s[:], id[:]):], digest[:])
	return s, nil
}

// digest is the SHA-256 of all columns in the order of chargeColumns: texts with
// their length before them, numbers as eight bytes, a missing reference as an
// empty text.
func (c *charge) digest() [hashSize]byte {
	buffer := make([]byte, 0, 512)
	for _, v := range c.values() {
		switch v := v.(type) {
		case string:
			buffer = append(binary.AppendUvarint(buffer, uint64(len(v))), v...)
		case *string:
			if v == nil {
				v = new(string)
			}
			buffer = append(binary.AppendUvarint(buffer, uint64(len(*v))), *v...)
		case int64:
			buffer = binary.BigEndian.AppendUint64(buffer, uint64(v)) //nolint:gosec // its bits
		}
	}
	return sha256.Sum256(buffer)
}

// firstHash is what the first link of a writer's chain follows.
func firstHash(writer string) []byte {
	sum := sha256.Sum256([]byte(writer))
	return sum[:]
}

// nextHash is the hash of a link that seals what follows another's hash.
func nextHash(before, sealed []byte) []byte {
	h := sha256.New()
	h.Write(before)
	h.Write(sealed)
	return h.Sum(nil)
}

// sealer collects the seals of a transaction.
type sealer struct{ seals []seal }

func (s *sealer) add(c *charge) error {
	one, err := c.seal()
	if err != nil {
		return err
	}
	s.seals = append(s.seals, one)
	return nil
}

func (s *sealer) empty() bool { return len(s.seals) == 0 }

func (s *sealer) count() int64 { return int64(len(s.seals)) }

// sealed are the seals in the order of their ids, one after the other.
func (s *sealer) sealed() []byte {
	slices.SortFunc(s.seals, func(a, b seal) int { return bytes.Compare(a[:], b[:]) })
	all := make([]byte, 0, len(s.seals)*sealSize)
	for i := range s.seals {
		all = append(all, s.seals[i][:]...)
	}
	return all
}
