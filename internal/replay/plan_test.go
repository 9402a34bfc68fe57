package replay

import (
	"errors"
	"flag"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

var rewrite = flag.Bool("rewrite", false, "rewrite the golden files")

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *rewrite {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs:\n%s\nwant:\n%s", name, got, want)
	}
}

// describe prints a plan, one action a line.
func describe(p *Plan) string {
	var b strings.Builder
	for _, r := range p.Receipts {
		fmt.Fprintf(&b, "receive %s %d (%s)\n", r.SKU, r.Quantity, r.Key)
	}
	for _, l := range p.Lanes {
		fmt.Fprintf(&b, "lane %q\n", l.Customer)
		for _, a := range l.Actions {
			switch {
			case a.Order != nil:
				fmt.Fprintf(&b, "  place %s total=%d (%s)\n", a.Order.Invoice, a.Order.Total, a.Order.Key)
				for i, line := range a.Order.Lines {
					fmt.Fprintf(&b, "    %d: %s %d × %d", i+1, line.SKU, line.Quantity, line.Price)
					if line.Untracked {
						b.WriteString(" untracked")
					}
					b.WriteString("\n")
				}
				fmt.Fprintf(&b, "  ship %s (%s)\n", a.Order.Invoice, a.Order.ShipKey)
			case a.Adjust != nil:
				fmt.Fprintf(&b, "  adjust %s %+d %q (%s)\n", a.Adjust.SKU, a.Adjust.Quantity, a.Adjust.Reason, a.Adjust.Key)
			case a.Return != nil:
				for _, part := range a.Return.Parts {
					fmt.Fprintf(&b, "  return %s on %s %v refund=%d (%s)\n", a.Return.Invoice, part.Order.Invoice, part.Items, part.Amount, part.Key)
				}
			}
		}
	}
	for _, r := range p.Refused {
		fmt.Fprintf(&b, "refuse %s %s × %d: %s\n", r.Invoice, r.SKU, r.Units, r.Reason)
	}
	fmt.Fprintf(&b, "%+v\n", p.Truth)
	return b.String()
}

func TestPlan(t *testing.T) {
	for _, limit := range []int{0, 3} {
		t.Run(fmt.Sprintf("limit %d", limit), func(t *testing.T) {
			p, err := PlanRows(ReadFile("testdata/shop.csv"), Options{Run: "test", Limit: limit})
			if err != nil {
				t.Fatal(err)
			}
			golden(t, fmt.Sprintf("plan_limit%d.txt", limit), describe(p))
		})
	}
}

// keys lists every idempotency key with the content it stands for.
func keys(p *Plan) map[string]any {
	m := make(map[string]any)
	put := func(key string, v any) {
		if m[key] != nil {
			panic("key used twice: " + key)
		}
		m[key] = v
	}
	for _, r := range p.Receipts {
		put(r.Key, r)
	}
	for _, l := range p.Lanes {
		for _, a := range l.Actions {
			switch {
			case a.Order != nil:
				var lines []Line
				for _, l := range a.Order.Lines {
					l.unreturned = 0
					lines = append(lines, l)
				}
				put(a.Order.Key, lines)
				put(a.Order.ShipKey, a.Order.Invoice)
			case a.Adjust != nil:
				put(a.Adjust.Key, *a.Adjust)
			case a.Return != nil:
				for _, part := range a.Return.Parts {
					put(part.Key, fmt.Sprint(part.Order.Invoice, part.Items))
				}
			}
		}
	}
	return m
}

func TestLimitedPlanIsTheBeginningOfAWholeOne(t *testing.T) {
	rows := slices.Collect(ok(Synthetic(7, 400)))
	whole := keys(mustPlan(t, rows, Options{}))
	for _, limit := range []int{1, 17, 200, 399} {
		part := keys(mustPlan(t, rows, Options{Limit: limit}))
		for key, v := range part {
			if !reflect.DeepEqual(whole[key], v) {
				t.Errorf("limit %d: key %s stands for %v, in the whole plan for %v", limit, key, v, whole[key])
			}
		}
	}
}

func TestLanesKeepFileOrder(t *testing.T) {
	p := mustPlan(t, slices.Collect(ok(Synthetic(3, 500))), Options{})
	returns := 0
	for i, l := range p.Lanes {
		if i > 0 && len(l.Actions) > len(p.Lanes[i-1].Actions) {
			t.Errorf("lane %d has %d actions, the one before %d", i, len(l.Actions), len(p.Lanes[i-1].Actions))
		}
		placed := make(map[*Order]bool)
		for _, a := range l.Actions {
			if a.Order != nil {
				placed[a.Order] = true
			}
			if a.Return != nil {
				returns++
				for _, part := range a.Return.Parts {
					if !placed[part.Order] {
						t.Errorf("customer %s returns of invoice %s before it is placed", l.Customer, part.Order.Invoice)
					}
				}
			}
		}
	}
	if returns == 0 {
		t.Error("the synthetic shop has no returns")
	}
}

func TestRowsThatCannotBePlanned(t *testing.T) {
	order := func(invoice, customer string, quantity, price int64) Row {
		return Row{Number: 1, Invoice: invoice, SKU: "A", Quantity: quantity, Price: price, Customer: customer}
	}
	for name, c := range map[string]struct {
		rows []Row
		want string
	}{
		"rounding the price changes the total":   {[]Row{order("1", "c", 100, 1)}, "100 × 1/1000 is 10 pence, but 100 × 0 pence is 0"},
		"an invoice belongs to two customers":    {[]Row{order("1", "c", 1, 10), order("1", "d", 1, 10)}, `customer "c" and to "d"`},
		"half a penny rounds to even, times 3":   {[]Row{order("1", "c", 3, 25)}, "3 × 25/1000 is 8 pence, but 3 × 2 pence is 6"},
		"half a penny rounds to even, times 1":   {[]Row{order("1", "c", 1, 25)}, ""},
		"a thousandth of which there is one":     {[]Row{order("1", "c", 1, 1)}, ""},
		"a customer's invoice joined by a guest": {[]Row{order("1", "c", 1, 10), order("1", "", 1, 10)}, `customer "c" and to ""`},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := PlanRows(each(c.rows), Options{})
			switch {
			case c.want == "" && err != nil:
				t.Errorf("PlanRows: %v", err)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
				t.Errorf("PlanRows: %v, want %q", err, c.want)
			}
		})
	}
}

func TestPence(t *testing.T) {
	for thousandths, want := range map[int64]int64{
		0: 0, 1: 0, 4: 0, 5: 0, 6: 1, 14: 1, 15: 2, 16: 2, 24: 2, 25: 2, 26: 3, 2550: 255, -5: 0, -6: -1, -15: -2, -25: -2, -11062060: -1106206,
	} {
		if got := pence(thousandths); got != want {
			t.Errorf("pence(%d) = %d, want %d", thousandths, got, want)
		}
	}
}

func TestReadRowsRefuses(t *testing.T) {
	const good = "1,A,x,1,2010-12-01 08:26:00,1.25,7,UK\n"
	for name, c := range map[string]struct{ file, want string }{
		"empty":         {"", "read the header"},
		"other columns": {"a,b\n", "columns are"},
		"short row":     {Header + "\n" + good + "1,A\n", "read row 2"},
		"bad quantity":  {Header + "\n" + strings.Replace(good, ",1,", ",one,", 1), `line 2 of the file`},
		"bad time":      {Header + "\n" + strings.Replace(good, "2010-12-01", "1/12/2010", 1), "parsing time"},
		"too exact":     {Header + "\n" + strings.Replace(good, "1.25", "1.2345", 1), "more than three decimal places"},
		"no price":      {Header + "\n" + strings.Replace(good, "1.25", "free", 1), "not a decimal number"},
		"no invoice":    {Header + "\n" + good[1:], "no invoice number"},
		"open quote":    {Header + "\n" + `1,A,"x,1`, "read row 1"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, err := range ReadRows(strings.NewReader(c.file)) {
				if err != nil {
					if !strings.Contains(err.Error(), c.want) {
						t.Errorf("ReadRows: %v, want %q", err, c.want)
					}
					return
				}
			}
			t.Errorf("ReadRows took it, want %q", c.want)
		})
	}
	for _, err := range ReadFile(filepath.Join(t.TempDir(), "absent.csv.gz")) {
		if !errors.Is(err, os.ErrNotExist) {
			t.Errorf("ReadFile of an absent file: %v", err)
		}
	}
}

func FuzzReadRows(f *testing.F) {
	shop, err := os.ReadFile("testdata/shop.csv")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(shop))
	f.Add(Header + "\n1,A,\"x\"\"y\",1,2010-12-01 08:26:00,1.25,7,UK\n")
	f.Fuzz(func(t *testing.T, file string) {
		for _, err := range ReadRows(strings.NewReader(file)) {
			_ = err // garbage gives an error and ends the file, it never panics
		}
	})
}

// TestRealShop checks the plan of the real file against what is known about it.
func TestRealShop(t *testing.T) {
	path := filepath.Join("..", "..", "..", "shared", "data", "online_retail.csv.gz")
	if _, err := os.Stat(path); err != nil {
		t.Skipf("the shop's file is not here: %v", err)
	}
	p, err := PlanRows(ReadFile(path), Options{})
	if err != nil {
		t.Fatal(err)
	}
	want := Truth{
		Orders: 19_959, Guests: 1_427, Lines: 530_103, Units: 5_588_375, Amount: 1_065_562_248,
		Adjustments: 2_515, AdjustedUnits: -134_354,
		ReturnsBooked: 7_518, ReturnedUnits: 250_377, Refunded: 50_681_266, ReturnedOrders: 3_248, Rejected: 1_770,
		Skipped: 3,
	}
	if p.Truth != want {
		t.Errorf("truth\n%+v, want\n%+v", p.Truth, want)
	}
	customers, most, largest := 0, 0, int64(0)
	for _, l := range p.Lanes {
		if l.Customer != "" {
			customers++
		}
		for _, a := range l.Actions {
			if a.Order != nil {
				most, largest = max(most, len(a.Order.Lines)), max(largest, a.Order.Total)
			}
		}
	}
	if customers != 4_338 || most != 1_114 || largest != 16_846_960 {
		t.Errorf("%d customers, at most %d lines and %d pence; want 4338, 1114, 16846960", customers, most, largest)
	}
	keys(p) // panics when one is used twice
}

func mustPlan(t *testing.T, rows []Row, opts Options) *Plan {
	t.Helper()
	p, err := PlanRows(each(rows), opts)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func each(rows []Row) iter.Seq2[Row, error] {
	return func(yield func(Row, error) bool) {
		for _, r := range rows {
			if !yield(r, nil) {
				return
			}
		}
	}
}

func ok(rows iter.Seq2[Row, error]) iter.Seq[Row] {
	return func(yield func(Row) bool) {
		for r, err := range rows {
			if err != nil {
				panic(err)
			}
			if !yield(r) {
				return
			}
		}
	}
}
