package main

import "strconv"

// wholeNumber is an option that holds a plain decimal integer. pflag's own
// integers also take 0x10, 1_000 and the octal 010, which is not what somebody
// who types a limit means.
type wholeNumber int64

const wholeNumberType = "N"

// Set implements [pflag.Value].
func (n *wholeNumber) Set(text string) error {
	v, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return err
	}
	*n = wholeNumber(v)
	return nil
}

// String implements [pflag.Value].
func (n *wholeNumber) String() string { return strconv.FormatInt(int64(*n), 10) }

// Type implements [pflag.Value]; the help shows it as the option's argument.
func (*wholeNumber) Type() string { return wholeNumberType }
