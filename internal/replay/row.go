package replay

import (
	"compress/gzip"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Row is one line of the shop's file.
type Row struct {
	// Number counts the rows after the header from 1.
	Number int
	// Invoice begins with C for a return and with A for a bad-debt booking.
	Invoice string
	// SKU is case-sensitive.
	SKU         string
	Description string
	// Quantity is in units, negative for what left the shop without a sale and for returns.
	Quantity int64
	Time     time.Time
	// Price of a unit in thousandths of the currency's main unit: the file has prices of 0.001.
	Price int64
	// Customer is empty for a guest.
	Customer string
}

// Header is the first line of a shop's file.
const Header = "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country"

// priceScale is the number of Price units in a penny.
const priceScale = 10

// ReadRows yields the rows of a CSV file with the columns of [Header]. It stops after the first error, which
// names the line of the file.
func ReadRows(r io.Reader) iter.Seq2[Row, error] {
	return func(yield func(Row, error) bool) {
		c := csv.NewReader(r)
		c.ReuseRecord = true
		header, err := c.Read()
		if err != nil {
			yield(Row{}, fmt.Errorf("read the header: %w", err))
			return
		}
		if want := strings.Split(Header, ","); !slices.Equal(header, want) {
			yield(Row{}, fmt.Errorf("read the header: columns are %q, want %q", header, want))
			return
		}
		// The same few thousand codes and names come again and again; one copy of each
		// keeps half a million rows small.
		seen := make(map[string]string)
		intern := func(s string) string {
			if t, ok := seen[s]; ok {
				return t
			}
			t := strings.Clone(s)
			seen[t] = t
			return t
		}
		for number := 1; ; number++ {
			f, err := c.Read()
			if errors.Is(err, io.EOF) {
				return
			}
			if err != nil {
				yield(Row{}, fmt.Errorf("read row %d: %w", number, err))
				return
			}
			row := Row{Number: number, Invoice: intern(f[0]), SKU: intern(f[1]), Description: intern(f[2]), Customer: intern(f[6])}
			if row.Quantity, err = strconv.ParseInt(f[3], 10, 64); err == nil {
				if row.Time, err = time.Parse(time.DateTime, f[4]); err == nil {
					row.Price, err = parsePrice(f[5])
				}
			}
			if err == nil && (row.Invoice == "" || row.SKU == "") {
				err = errors.New("no invoice number or no stock code")
			}
			if err != nil {
				line, _ := c.FieldPos(0)
				yield(Row{}, fmt.Errorf("read row %d (line %d of the file): %w", number, line, err))
				return
			}
			if !yield(row, nil) {
				return
			}
		}
	}
}

// ReadFile yields the rows of a CSV file, compressed when its name ends in .gz.
func ReadFile(path string) iter.Seq2[Row, error] {
	return func(yield func(Row, error) bool) {
		f, err := os.Open(path)
		if err != nil {
			yield(Row{}, err)
			return
		}
		defer f.Close()
		var r io.Reader = f
		if strings.HasSuffix(path, ".gz") {
			z, err := gzip.NewReader(f)
			if err != nil {
				yield(Row{}, fmt.Errorf("decompress %s: %w", path, err))
				return
			}
			r = z
		}
		for row, err := range ReadRows(r) {
			if !yield(row, err) {
				return
			}
		}
	}
}

// parsePrice reads a decimal with up to three places as thousandths, exactly.
func parsePrice(s string) (int64, error) {
	whole, frac, _ := strings.Cut(s, ".")
	if len(frac) > 3 {
		return 0, fmt.Errorf("price %q: more than three decimal places", s)
	}
	digits := whole + frac + "000"[len(frac):]
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("price %q: not a decimal number", s)
	}
	return n, nil
}

// pence rounds thousandths to the penny, halves to the even neighbour.
func pence(thousandths int64) int64 {
	q, r := thousandths/priceScale, thousandths%priceScale
	if r < 0 {
		q, r = q-1, r+priceScale
	}
	if r > priceScale/2 || r == priceScale/2 && q%2 != 0 {
		q++
	}
	return q
}
