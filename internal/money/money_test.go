package money

import (
	"math"
	"testing"
)

func TestMoneyIsWrittenWithTheCurrencysDecimals(t *testing.T) {
	for _, test := range []struct {
		minor    int64
		currency string
		want     string
	}{
		{0, "EUR", "0.00 EUR"}, {5, "EUR", "0.05 EUR"}, {123456, "GBP", "1234.56 GBP"}, {-5, "EUR", "-0.05 EUR"}, {-1250, "EUR", "-12.50 EUR"},
		{2500, "JPY", "2500 JPY"}, {-1, "JPY", "-1 JPY"}, {0, "JPY", "0 JPY"}, {7, "KWD", "0.007 KWD"}, {12345, "CLF", "1.2345 CLF"},
		{math.MaxInt64, "EUR", "92233720368547758.07 EUR"}, {math.MinInt64, "EUR", "-92233720368547758.08 EUR"},
	} {
		if got := Text(test.minor, test.currency); got != test.want {
			t.Errorf("Text(%d, %s) = %q, want %q", test.minor, test.currency, got, test.want)
		}
	}
}
