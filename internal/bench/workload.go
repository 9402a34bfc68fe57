package bench

import (
	"fmt"
	"math/rand/v2"
	"slices"
)

// Workload says which SKUs orders ask for.
type Workload string

// The workloads: every SKU alike, few of them often (Zipf's law, exponent 1.1), and one that is in every order.
const (
	Uniform Workload = "uniform"
	Zipf    Workload = "zipf"
	Hot     Workload = "hot"
)

// Workloads lists all of them.
func Workloads() []Workload { return []Workload{Uniform, Zipf, Hot} }

// zipfExponent is what shops' sales and pages' views are usually fitted with: the first of 10,000 SKUs has 15 % of the draws.
const zipfExponent = 1.1

// ParseWorkload reads a workload's name.
func ParseWorkload(s string) (Workload, error) {
	if w := Workload(s); slices.Contains(Workloads(), w) {
		return w, nil
	}
	return "", fmt.Errorf("workload %q: want one of %v", s, Workloads())
}

// Baskets draws the SKUs of one client's orders, as numbers from 0.
type Baskets struct {
	draw   func() int
	hot    bool
	basket []int
}

// Baskets returns a source of baskets of lines different SKUs out of skus. The same seed gives the same baskets.
func (w Workload) Baskets(skus, lines int, seed uint64) *Baskets {
	r := rand.New(rand.NewPCG(seed, 0x62656e6368))
	b := &Baskets{basket: make([]int, 0, lines), hot: w == Hot}
	switch w {
	case Zipf:
		z := rand.NewZipf(r, zipfExponent, 1, uint64(skus-1))
		b.draw = func() int { return int(z.Uint64()) }
	default:
		b.draw = func() int { return r.IntN(skus) }
	}
	return b
}

// Next returns the SKUs of the next order, ascending: whoever locks them one after the other never meets another
// who did it the other way around. The slice is valid until the next call.
func (b *Baskets) Next() []int {
	b.basket = b.basket[:0]
	if b.hot {
		b.basket = append(b.basket, 0)
	}
	for len(b.basket) < cap(b.basket) {
		if sku := b.draw(); !slices.Contains(b.basket, sku) {
			b.basket = append(b.basket, sku)
		}
	}
	slices.Sort(b.basket)
	return b.basket
}
