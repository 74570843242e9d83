package billing

import (
	"encoding/json"
	"fmt"
	"math"
	"math/bits"
	"strings"
)

// Money is an amount in nano-units (1e-9) of the books' one currency. It is
// never a float: sums are exact, and prices of a single token are whole.
type Money int64

// Bounds in arithmetic. The dearest price times the largest figure of a charge
// stays below maxCost, which itself is far from the end of an int64.
const (
	nano       = int64(1_000_000_000) // nano-units of one unit
	perTokens  = uint64(1_000_000)    // prices are for a million tokens
	maxPrice   = Money(1e14)          // 100,000 units for a million tokens
	maxCost    = int64(1) << 50       // of one charge: over a million units
	maxDigits  = 9                    // after the point
	maxUnits   = math.MaxInt64 / nano
	moneyWants = "a plain decimal number with at most 9 digits after the point, such as 2.5 or 0.000125"
)

// String writes the amount in units, exactly and without zeros at its end:
// "12.5", "0.000000001", "0".
func (m Money) String() string {
	sign, n := "", uint64(m) //nolint:gosec // its bits: also of the one that has no opposite
	if m < 0 {
		sign, n = "-", -n
	}
	text := fmt.Sprintf("%s%d.%09d", sign, n/uint64(nano), n%uint64(nano))
	return strings.TrimSuffix(strings.TrimRight(text, "0"), ".")
}

// MarshalJSON writes the amount as a text in units: JSON readers turn numbers
// into floats.
func (m Money) MarshalJSON() ([]byte, error) { return json.Marshal(m.String()) }

// UnmarshalJSON reads what MarshalJSON writes, and plain numbers.
func (m *Money) UnmarshalJSON(text []byte) (err error) {
	var s string
	if json.Unmarshal(text, &s) != nil {
		s = string(text)
	}
	*m, err = ParseMoney(s)
	return err
}

// ParseMoney reads an amount >= 0 in units, digit by digit. ErrInvalid: a sign,
// an exponent, more than nine digits after the point, or an amount beyond
// 9,223,372,035 units.
func ParseMoney(text string) (Money, error) {
	whole, part, point := strings.Cut(text, ".")
	if whole == "" || point && part == "" || len(part) > maxDigits || len(whole) > 10 {
		return 0, fmt.Errorf("%w: write an amount as %s", ErrInvalid, moneyWants)
	}
	n := int64(0)
	for _, digit := range whole + part + strings.Repeat("0", maxDigits-len(part)) {
		if digit < '0' || digit > '9' {
			return 0, fmt.Errorf("%w: write an amount as %s", ErrInvalid, moneyWants)
		}
		if n > (maxUnits*nano-9)/10 {
			return 0, fmt.Errorf("%w: an amount is below %d", ErrInvalid, maxUnits)
		}
		n = 10*n + int64(digit-'0')
	}
	return Money(n), nil
}

// wide is a sum of products of two int64 >= 0.
type wide struct{ hi, lo uint64 }

// plus adds tokens times a price. 2^40 tokens at 2^47 leave room for 2^41 of them.
//
//nolint:gosec // neither is negative
func (w wide) plus(tokens int64, price Money) wide {
	hi, lo := bits.Mul64(uint64(tokens), uint64(price))
	var carry uint64
	w.lo, carry = bits.Add64(w.lo, lo, 0)
	w.hi, carry = bits.Add64(w.hi, hi, carry)
	if carry > 0 {
		return wide{math.MaxUint64, math.MaxUint64}
	}
	return w
}

// cost is the sum for a million tokens as the cost of the tokens, rounded up
// once, and never above maxCost.
func (w wide) cost() int64 {
	if w.hi >= perTokens {
		return maxCost
	}
	q, rest := bits.Div64(w.hi, w.lo, perTokens)
	if rest > 0 && q < math.MaxUint64 {
		q++
	}
	return int64(min(q, uint64(maxCost)))
}
