package psp

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"hanse/internal/dirlock"
)

// Operation is a row of the ledger: a call that was carried out, or declined for good.
type Operation struct {
	Seq       uint64 `json:"seq"` // from 1, without gaps
	Key       string `json:"key"`
	PaymentID string `json:"payment_id"`
	OrderID   string `json:"order_id"`
	Kind      string `json:"kind"` // authorize, capture, void, refund
	Amount    int64  `json:"amount"`
	Currency  string `json:"currency"`
	Declined  bool   `json:"declined,omitempty"`
	Code      string `json:"code,omitempty"` // of a decline
	Reference string `json:"reference"`
	AtMillis  int64  `json:"at_millis"`
}

// account sums up a payment.
type account struct {
	currency                               string
	authorized, captured, refunded, voided int64
}

// Totals sum up a ledger.
type Totals struct {
	Operations uint64 `json:"operations"` // with the declined ones
	Declined   uint64 `json:"declined"`
	Payments   int    `json:"payments"` // with an operation that was carried out
	// Currencies are sorted by code.
	Currencies []*CurrencyTotals `json:"currencies"`
}

// CurrencyTotals are the sums in one currency, in its minor units.
type CurrencyTotals struct {
	Currency   string `json:"currency"`
	Authorized int64  `json:"authorized"`
	Captured   int64  `json:"captured"`
	Voided     int64  `json:"voided"`
	Refunded   int64  `json:"refunded"`
}

// ledger is the provider's memory: an append-only file of JSON lines, synced for many operations at once. All rows are in
// memory too, some 500 bytes each.
type ledger struct {
	mu         sync.Mutex
	byKey      map[string]*Operation
	rows       []*Operation
	accounts   map[string]*account
	declined   uint64
	currencies map[string]*CurrencyTotals

	lock    *dirlock.Lock
	file    *os.File // nil for one in memory only
	sync    bool
	pending []byte // rows that are not in the file yet
	flushed *sync.Cond
	written uint64 // rows that are on disk
	busy    bool   // somebody is writing
	fault   error  // of the disk; nothing is recorded after it
}

// openLedger reads the ledger in a directory, which is made if need be, and keeps others from it: two that write to one file would
// each answer what the other does not know. The torn end that a crash leaves is cut off: nobody has been told about it. Without
// a directory the ledger is in memory only.
func openLedger(dir string, syncs bool) (_ *ledger, err error) {
	l := &ledger{
		byKey: make(map[string]*Operation), accounts: make(map[string]*account), currencies: make(map[string]*CurrencyTotals), sync: syncs,
	}
	l.flushed = sync.NewCond(&l.mu)
	if dir == "" {
		return l, nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if l.lock, err = dirlock.Take(dir, fmt.Sprintf("the provider with process ID %d", os.Getpid())); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.lock.Release())
		}
	}()
	path := filepath.Join(dir, "ledger.jsonl")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open ledger: %w", err)
	}
	l.file = f
	end, err := l.replay(f)
	if err == nil {
		err = f.Truncate(end)
	}
	if err == nil {
		_, err = f.Seek(end, io.SeekStart)
	}
	if err == nil && syncs {
		// The cut, and the name of a new file, have to survive a crash before anything is answered on their strength.
		err = errors.Join(f.Sync(), syncDir(dir))
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("ledger %s: %w", path, err), f.Close())
	}
	l.written = uint64(len(l.rows))
	return l, nil
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// replay adds the rows of a file and returns where they end. What a crash tore has no row behind it; a row that does not
// follow from the one before it, with others behind, is damage that only a person can judge.
func (l *ledger) replay(r io.Reader) (end int64, err error) {
	in := bufio.NewReaderSize(r, 1<<20)
	torn := false
	for {
		line, err := in.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return end, nil // what has no newline was not finished
		}
		if err != nil {
			return 0, fmt.Errorf("read: %w", err)
		}
		op := new(Operation)
		bad := json.Unmarshal(line, op) != nil || op.Seq == 0
		switch {
		case bad:
			torn = true
		case torn || op.Seq != uint64(len(l.rows))+1 || l.byKey[op.Key] != nil:
			return 0, fmt.Errorf("damaged at byte %d: want row %d, found row %d (key %q)", end, len(l.rows)+1, op.Seq, op.Key)
		default:
			end += int64(len(line))
			l.add(op)
		}
	}
}

func (l *ledger) add(op *Operation) {
	l.rows = append(l.rows, op)
	l.byKey[op.Key] = op
	if op.Declined {
		l.declined++
		return
	}
	a := l.accounts[op.PaymentID]
	if a == nil {
		a = &account{currency: op.Currency}
		l.accounts[op.PaymentID] = a
	}
	c := l.currencies[op.Currency]
	if c == nil {
		c = &CurrencyTotals{Currency: op.Currency}
		l.currencies[op.Currency] = c
	}
	switch op.Kind {
	case kindAuthorize:
		a.authorized += op.Amount
		c.Authorized += op.Amount
	case kindCapture:
		a.captured += op.Amount
		c.Captured += op.Amount
	case kindRefund:
		a.refunded += op.Amount
		c.Refunded += op.Amount
	case kindVoid:
		a.voided += op.Amount
		c.Voided += op.Amount
	}
}

// record adds an operation, whose Seq it sets. It is not on disk before wait returns. l.mu is held.
func (l *ledger) record(op *Operation) error {
	op.Seq = uint64(len(l.rows)) + 1
	if l.file != nil {
		line, err := json.Marshal(op)
		if err != nil {
			return fmt.Errorf("encode operation: %w", err)
		}
		l.pending = append(append(l.pending, line...), '\n')
	}
	l.add(op)
	return nil
}

// wait returns when row seq is on disk. Whoever comes first writes for all who wait. l.mu is held, and let go meanwhile.
func (l *ledger) wait(seq uint64) error {
	for l.file != nil && l.written < seq && l.fault == nil {
		if l.busy {
			l.flushed.Wait()
			continue
		}
		l.busy = true
		data, last := l.pending, uint64(len(l.rows))
		l.pending = nil
		l.mu.Unlock()
		_, err := l.file.Write(data)
		if err == nil && l.sync {
			err = l.file.Sync()
		}
		l.mu.Lock()
		l.busy = false
		if err != nil {
			l.fault = fmt.Errorf("write ledger: %w", err) // what the disk has now nobody knows before the next start
		} else {
			l.written = last
		}
		l.flushed.Broadcast()
	}
	return l.fault
}

// page lists rows after seq, at most limit, and reports whether there are more: only those on disk, as others may yet be lost.
func (l *ledger) page(after, limit uint64) (rows []*Operation, more bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	end := uint64(len(l.rows))
	if l.file != nil {
		end = l.written
	}
	after = min(after, end)
	last := min(after+limit, end)
	return slices.Clone(l.rows[after:last]), last < end
}

// find returns the row of a key once it is on disk, nil when there is none.
func (l *ledger) find(key string) (*Operation, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	op := l.byKey[key]
	if op == nil {
		return nil, l.fault
	}
	return op, l.wait(op.Seq)
}

func (l *ledger) totals() Totals {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := Totals{Operations: uint64(len(l.rows)), Declined: l.declined, Payments: len(l.accounts), Currencies: []*CurrencyTotals{}}
	for _, code := range slices.Sorted(maps.Keys(l.currencies)) {
		sums := *l.currencies[code]
		t.Currencies = append(t.Currencies, &sums)
	}
	return t
}

func (l *ledger) close() error {
	if l.file == nil {
		return nil
	}
	l.mu.Lock()
	err := l.wait(uint64(len(l.rows)))
	l.mu.Unlock()
	return errors.Join(err, l.file.Close(), l.lock.Release())
}
