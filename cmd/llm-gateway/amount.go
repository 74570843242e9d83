package main

import "github.com/MaksimVF/llm-gateway/billing"

// moneyAmount is an option that holds an amount of money, in nano-units.
type moneyAmount int64

const moneyAmountType = "AMOUNT"

// Set implements [pflag.Value].
func (m *moneyAmount) Set(text string) error {
	amount, err := billing.ParseMoney(text)
	if err != nil {
		return err
	}
	*m = moneyAmount(amount)
	return nil
}

// String implements [pflag.Value].
func (m *moneyAmount) String() string { return billing.Money(*m).String() }

// Type implements [pflag.Value]; the help shows it as the option's argument.
func (*moneyAmount) Type() string { return moneyAmountType }
