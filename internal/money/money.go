package money

import "fmt"

// decimals of the currencies that do not have two (ISO 4217, list one).
var decimals = map[string]int{
	"BIF": 0, "CLP": 0, "DJF": 0, "GNF": 0, "ISK": 0, "JPY": 0, "KMF": 0, "KRW": 0, "PYG": 0, "RWF": 0, "UGX": 0, "UYI": 0,
	"VND": 0, "VUV": 0, "XAF": 0, "XOF": 0, "XPF": 0,
	"BHD": 3, "IQD": 3, "JOD": 3, "KWD": 3, "LYD": 3, "OMR": 3, "TND": 3,
	"CLF": 4, "UYW": 4,
}

// Amount writes minor units as people read them, with as many decimals as the currency has.
func Amount(minor int64, currency string) string {
	n, other := decimals[currency]
	if !other {
		n = 2
	}
	sign, units := "", uint64(minor)
	if minor < 0 {
		sign, units = "-", -units
	}
	digits := fmt.Sprintf("%0*d", n+1, units)
	if n == 0 {
		return sign + digits
	}
	return sign + digits[:len(digits)-n] + "." + digits[len(digits)-n:]
}

// Text is an amount with its currency.
func Text(minor int64, currency string) string { return Amount(minor, currency) + " " + currency }
