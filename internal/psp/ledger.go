package psp

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
)

// Operation is a row of the ledger: a call that was carried out, or declined for good.
type Operation struct {
	Seq       uint64 `json:"seq"`
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
type account struct{ authorized, captured, refunded, voided int64 }

// ledger is the provider's memory: an append-only file of JSON lines, synced for many operations at once.
type ledger struct {
	mu       sync.Mutex
	byKey    map[string]*Operation
	rows     []*Operation
	accounts map[string]*account

	file    *os.File
	sync    bool
	pending []byte
	flushed *sync.Cond
	written uint64 // rows that are on disk
	busy    bool
	fault   error
}

// openLedger reads the file at path, which is made if need be. The torn end that a crash leaves is cut off: nobody has been
// told about it. An empty path keeps the ledger in memory only.
func openLedger(path string, syncs bool) (*ledger, error) {
	l := &ledger{byKey: make(map[string]*Operation), accounts: make(map[string]*account), sync: syncs}
	l.flushed = sync.NewCond(&l.mu)
	if path == "" {
		return l, nil
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open ledger: %w", err)
	}
	l.file = f
	r := bufio.NewReaderSize(f, 1<<20)
	var good int64
	for {
		line, err := r.ReadBytes('\n')
		if err == io.EOF {
			break // what has no newline was not finished
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("read ledger: %w", err), f.Close())
		}
		op := new(Operation)
		if err := json.Unmarshal(line, op); err != nil || op.Seq != uint64(len(l.rows))+1 {
			return nil, errors.Join(fmt.Errorf("ledger %s is damaged at byte %d: row %d does not follow", path, good, len(l.rows)+1), f.Close())
		}
		good += int64(len(line))
		l.add(op)
	}
	if err := f.Truncate(good); err != nil {
		return nil, errors.Join(fmt.Errorf("cut ledger: %w", err), f.Close())
	}
	if _, err := f.Seek(good, io.SeekStart); err != nil {
		return nil, errors.Join(fmt.Errorf("open ledger: %w", err), f.Close())
	}
	l.written = uint64(len(l.rows))
	return l, nil
}

func (l *ledger) add(op *Operation) {
	l.rows = append(l.rows, op)
	l.byKey[op.Key] = op
	if op.Declined {
		return
	}
	a := l.accounts[op.PaymentID]
	if a == nil {
		a = new(account)
		l.accounts[op.PaymentID] = a
	}
	switch op.Kind {
	case "authorize":
		a.authorized += op.Amount
	case "capture":
		a.captured += op.Amount
	case "refund":
		a.refunded += op.Amount
	case "void":
		a.voided += op.Amount
	}
}

// record adds an operation; it is not on disk before wait returns.
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

// wait returns when row seq is on disk. Whoever comes first writes for all who wait. l.mu is held.
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
		l.busy, l.written = false, last
		if err != nil {
			l.fault = fmt.Errorf("write ledger: %w", err)
		}
		l.flushed.Broadcast()
	}
	return l.fault
}

func (l *ledger) close() error {
	if l.file == nil {
		return nil
	}
	l.mu.Lock()
	err := l.wait(uint64(len(l.rows)))
	l.mu.Unlock()
	return errors.Join(err, l.file.Close())
}
