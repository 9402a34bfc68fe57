// Package money writes amounts as people read them: minor units with the decimals of their currency.
package money
