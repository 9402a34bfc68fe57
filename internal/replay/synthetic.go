package replay

import (
	"fmt"
	"iter"
	"math/rand/v2"
	"time"
)

// Profile of the real shop's year, which Synthetic follows.
const (
	profileOrders    = 19_959
	profileCustomers = 4_338
	profileSKUs      = 3_921
)

// SyntheticOrders is the number of orders of a synthetic year.
const SyntheticOrders = profileOrders

// Synthetic yields the rows of an invented shop with the profile of the real one: as many orders per customer and SKU,
// 15 lines in the median order and few very large ones, no SKU in much more than 0.4 % of the lines, one
// order in fourteen a guest's, a return line for 57 order lines, an adjustment for 211. The same seed and
// number of orders give the same rows.
func Synthetic(seed uint64, orders int) iter.Seq2[Row, error] {
	return func(yield func(Row, error) bool) {
		r := rand.New(rand.NewPCG(seed, uint64(orders)))
		customers := max(1, orders*profileCustomers/profileOrders)
		at := time.Date(2010, 12, 1, 8, 26, 0, 0, time.UTC)
		step := 373 * 24 * time.Hour / time.Duration(max(1, orders))
		number, invoice := 0, 100_000
		type sold struct {
			sku, customer string
			quantity      int64
		}
		var recent []sold // what may be returned
		emit := func(row Row) bool {
			number++
			row.Number, row.Time = number, at
			return yield(row, nil)
		}
		for range orders {
			invoice++
			at = at.Add(step)
			customer := ""
			if r.IntN(14) != 0 {
				// The square favours some customers, as shops do.
				u := r.Float64()
				customer = fmt.Sprint(12_000 + int(u*u*float64(customers)))
			}
			lines := 1 + int(r.ExpFloat64()*21)
			if r.IntN(500) == 0 {
				lines += 300 + r.IntN(600)
			}
			for range min(lines, 1_114) {
				u := r.Float64()
				k := int(u * u * profileSKUs)
				row := Row{
					Invoice: fmt.Sprint(invoice), SKU: fmt.Sprintf("%05d", 20_000+k), Description: fmt.Sprintf("ARTICLE %d", k),
					Quantity: 1 + int64(r.ExpFloat64()*9), Price: 10 * (29 + int64(k*7919%1_200)), Customer: customer,
				}
				if r.IntN(400) == 0 {
					row.SKU, row.Description, row.Quantity = "POST", "POSTAGE", 1
				}
				if !emit(row) {
					return
				}
				if customer != "" && r.IntN(40) == 0 {
					recent = append(recent, sold{row.SKU, customer, row.Quantity})
				}
				if r.IntN(211) == 0 {
					invoice++
					adjust := Row{Invoice: fmt.Sprint(invoice), SKU: row.SKU, Description: "damaged", Quantity: 20 - int64(r.IntN(90))}
					if adjust.SKU != "POST" && adjust.Quantity != 0 && !emit(adjust) {
						return
					}
				}
			}
			for len(recent) > 40 {
				k := r.IntN(len(recent))
				s := recent[k]
				recent[k] = recent[len(recent)-1]
				recent = recent[:len(recent)-1]
				invoice++
				back := 1 + r.Int64N(s.quantity)
				if r.IntN(5) == 0 {
					back += s.quantity // more than that line had
				}
				if !emit(Row{Invoice: fmt.Sprintf("C%d", invoice), SKU: s.sku, Description: "RETURN", Quantity: -back, Customer: s.customer}) {
					return
				}
			}
		}
	}
}
