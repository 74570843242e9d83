package billing

import (
	"math/big"
	"regexp"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// anyTokens draws figures from none to beyond what a charge may hold.
func anyTokens(t *rapid.T, name string) int64 {
	return rapid.OneOf(rapid.Int64Range(0, 5), rapid.Int64Range(0, 10_000_000), rapid.Int64Range(maxFigure-2, maxFigure), rapid.Int64()).Draw(t, name)
}

func drawTokens(t *rapid.T) Tokens {
	var tokens Tokens
	for _, part := range tokens.parts() {
		*part = anyTokens(t, "tokens")
	}
	return tokens
}

func drawRates(t *rapid.T) Rates {
	var r Rates
	for i, rate := range r.list() {
		if rapid.Bool().Draw(t, Kinds()[i]) {
			m := Money(rapid.OneOf(rapid.Int64Range(0, 3), rapid.Int64Range(0, int64(maxPrice))).Draw(t, "rate"))
			*rate = &m
		}
	}
	return r
}

// plainCost is Cost in numbers without bounds, kind by kind.
func plainCost(r Rates, k kinds) *big.Int {
	f := r.filled()
	sum := new(big.Int)
	for _, p := range [][2]int64{
		{k.input, int64(f.input)},
		{k.cached, int64(f.cached)},
		{k.write, int64(f.write)},
		{k.output, int64(f.output)},
		{k.reasoning, int64(f.reasoning)},
		{k.audioIn, int64(f.audioIn)},
		{k.audioOut, int64(f.audioOut)},
	} {
		sum.Add(sum, new(big.Int).Mul(big.NewInt(p[0]), big.NewInt(p[1])))
	}
	q, rest := new(big.Int).QuoRem(sum, big.NewInt(1_000_000), new(big.Int))
	if rest.Sign() > 0 {
		q.Add(q, big.NewInt(1))
	}
	return q
}

func TestCost_isTheExactSumRoundedUpOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r, tokens := drawRates(t), drawTokens(t)
		want := plainCost(r, tokens.split())
		if want.Cmp(big.NewInt(maxCost)) > 0 {
			want.SetInt64(maxCost)
		}
		if got := r.Cost(tokens); big.NewInt(int64(got)).Cmp(want) != 0 {
			t.Fatalf("cost is %d, want %s", got, want)
		}
	})
}

func TestSplit_paysEachTokenOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		tokens := drawTokens(t)
		k := tokens.split()
		sane := func(n int64) int64 { return min(max(n, 0), maxFigure) }
		for _, n := range []int64{k.input, k.cached, k.write, k.audioIn, k.output, k.reasoning, k.audioOut} {
			if n < 0 {
				t.Fatalf("%+v", k)
			}
		}
		if k.input+k.cached+k.write+k.audioIn != sane(tokens.Prompt) || k.output+k.reasoning+k.audioOut != sane(tokens.Completion) {
			t.Fatalf("%+v is split into %+v", tokens, k)
		}
	})
}

// What is held covers whatever the answer turns out to be.
func TestBound_coversEveryAnswerWithinIt(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r, tokens := drawRates(t), drawTokens(t)
		prompt, output := max(tokens.Prompt, 0), max(tokens.Completion, 0)
		if bound := r.bound(prompt, output); int64(r.Cost(tokens)) > bound {
			t.Fatalf("%+v costs %d, held were %d", tokens, r.Cost(tokens), bound)
		}
	})
}

func TestAffords_isTheMostThatFits(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := drawRates(t)
		prompt, most := rapid.Int64Range(0, maxFigure).Draw(t, "prompt"), rapid.Int64Range(0, maxFigure).Draw(t, "most")
		money := rapid.OneOf(rapid.Int64Range(0, 1_000_000), rapid.Int64Range(0, maxCost)).Draw(t, "money")
		n := r.affords(prompt, most, money)
		switch {
		case n < 0 && r.bound(prompt, 0) <= money:
			t.Fatal("nothing, though the prompt fits")
		case n >= 0 && r.bound(prompt, n) > money:
			t.Fatalf("%d cost more than there is", n)
		case n >= 0 && n < most && r.bound(prompt, n+1) <= money:
			t.Fatalf("%d are too few", n)
		}
	})
}

// Sums of the dearest charges that can be stay below the end of an int64 for
// longer than anybody pays.
func TestCost_leavesRoomForSums(t *testing.T) {
	dear := maxPrice
	r := Rates{Input: &dear, Output: &dear}
	if got := r.Cost(Tokens{Prompt: 1<<63 - 1, Completion: 1<<63 - 1}); int64(got) != maxCost {
		t.Errorf("the dearest charge is %d", got)
	}
	if got := r.Cost(Tokens{Prompt: 10_000_000}); got != 10*maxPrice {
		t.Errorf("ten million tokens cost %d", got)
	}
	if maxCost > (1<<63-1)/8000 {
		t.Error("8000 of them wrap")
	}
}

func TestMoney_roundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := Money(rapid.OneOf(rapid.Int64Range(0, 2_000_000_000), rapid.Int64Range(0, maxUnits*nano-1)).Draw(t, "money"))
		back, err := ParseMoney(m.String())
		if err != nil || back != m {
			t.Fatalf("%d is written %s and read %d, %v", m, m, back, err)
		}
		exact, ok := new(big.Rat).SetString(m.String())
		if !ok || exact.Cmp(big.NewRat(int64(m), nano)) != 0 {
			t.Fatalf("%d is written %s", m, m)
		}
	})
}

func TestParseMoney(t *testing.T) {
	for text, want := range map[string]Money{
		"0": 0, "2.5": 2_500_000_000, "0.000000001": 1, "12": 12_000_000_000, "007.10": 7_100_000_000, "9223372035.999999999": 9223372035999999999,
	} {
		if got, err := ParseMoney(text); err != nil || got != want {
			t.Errorf("%s: %d, %v", text, got, err)
		}
	}
	for _, text := range []string{
		"", ".", "1.", ".5", "-1", "+1", "1e3", "1,5", "0.0000000001", "9223372036", "99999999999", "1 ", "0x1", "١", "NaN", "1.5.2",
	} {
		if got, err := ParseMoney(text); err == nil {
			t.Errorf("%q is read as %d", text, got)
		}
	}
}

func TestModelMatches_agreesWithAPattern(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		pattern := rapid.StringMatching(`[ab*/.]{1,8}`).Draw(t, "pattern")
		model := rapid.StringMatching(`[ab/.]{0,8}`).Draw(t, "model")
		want := regexp.MustCompile("^" + strings.ReplaceAll(regexp.QuoteMeta(pattern), `\*`, ".*") + "$").MatchString(model)
		if got := ModelMatches(pattern, model); got != want {
			t.Fatalf("%q matches %q: %v, want %v", pattern, model, got, want)
		}
	})
}

// priceAt is what a price list means, the slow way.
func priceAt(prices []Price, model string, at time.Time) *Price {
	var best *Price
	for i := range prices {
		p := &prices[i]
		newest := true
		for j := range prices {
			q := &prices[j]
			if q.Model == p.Model && !q.ValidFrom.After(at) && (q.ValidFrom.After(p.ValidFrom) || q.ValidFrom.Equal(p.ValidFrom) && q.ID > p.ID) {
				newest = false
			}
		}
		if p.ValidFrom.After(at) || !newest || p.Ends() || !ModelMatches(p.Model, model) {
			continue
		}
		if best == nil || exactness(p.Model) > exactness(best.Model) || exactness(p.Model) == exactness(best.Model) && p.Model < best.Model {
			best = p
		}
	}
	return best
}

func TestPriceList_agreesWithTheSlowWay(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var prices []Price
		for id := range rapid.Int64Range(0, 12).Draw(t, "prices") {
			p := Price{
				ID: id + 1, Model: rapid.SampledFrom([]string{"*", "a*", "ab*", "*b", "ab", "a*b", "b"}).Draw(t, "pattern"),
				ValidFrom: time.Unix(rapid.Int64Range(1, 5).Draw(t, "from"), 0),
			}
			if rate := Money(id); rapid.IntRange(0, 3).Draw(t, "ends") > 0 {
				p.Input = &rate
			}
			prices = append(prices, p)
		}
		model, at := rapid.SampledFrom([]string{"a", "ab", "aab", "b", "c", ""}).Draw(t, "model"), time.Unix(rapid.Int64Range(0, 6).Draw(t, "at"), 0)
		got, want := newPriceList(prices).at(model, at), priceAt(prices, model, at)
		if (got == nil) != (want == nil) || got != nil && got.ID != want.ID {
			t.Fatalf("price of %q is %+v, want %+v", model, got, want)
		}
	})
}
