package psp

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// Call is what a client asks for, Answer what it gets. They mirror the contract of package payment.
type Call struct {
	PaymentID string `json:"payment_id"`
	OrderID   string `json:"order_id,omitempty"`
	Kind      string `json:"kind"`
	Amount    int64  `json:"amount"` // minor units
	Currency  string `json:"currency"`
	Method    string `json:"method,omitempty"`
	Key       string `json:"key"`
	// Query asks what became of the key; nothing is done. Payment and kind have to be those of the operation.
	Query bool `json:"query,omitempty"`
	// Authorization is the reference of the payment's authorization. It is not looked at: the payment's ID says as much.
	Authorization string `json:"authorization,omitempty"`
}

// Answer is the provider's word on a call.
type Answer struct {
	Status    string `json:"status"`
	Reference string `json:"reference,omitempty"`
	Code      string `json:"code,omitempty"`
	Amount    int64  `json:"amount,omitempty"`
}

// The statuses of an answer.
const (
	Succeeded = "succeeded"
	Declined  = "declined" // for good
	NotFound  = "not_found"
	Unknown   = "unknown"
	Conflict  = "conflict" // the key belongs to another operation; nothing was done
)

// The kinds of operations.
const (
	kindAuthorize = "authorize"
	kindCapture   = "capture"
	kindVoid      = "void"
	kindRefund    = "refund"
)

const (
	// MaxCalls bounds the calls of one request.
	MaxCalls = 256
	// maxAmount bounds an amount and maxNameBytes an identifier.
	maxAmount    = 1_000_000_000_000_000
	maxNameBytes = 300
	maxBodyBytes = 1 << 20
	// maxSilence is how long a request that is not answered is kept open, for clients that would wait for ever.
	maxSilence = time.Minute
	// drainTime is how long requests under way may take when the server stops.
	drainTime = 3 * time.Second
	// A page of the ledger has maxPage rows at most, defaultPage when nothing is said.
	maxPage     = 10_000
	defaultPage = 1000
)

// Config of a provider. Start from DefaultConfig.
type Config struct {
	// Dir holds the ledger and is made if need be; empty keeps it in memory. One provider at a time uses it; another is refused.
	Dir string
	// Sync says that answers wait for the disk. Default true.
	Sync bool
	// Seed makes the misbehavior repeatable. Default 1.
	Seed     uint64
	Behavior Behavior
	Log      *slog.Logger
}

// DefaultConfig returns a provider that behaves.
func DefaultConfig() Config { return Config{Sync: true, Seed: 1, Log: slog.New(slog.DiscardHandler)} }

// Server is a provider. Its methods may be used concurrently.
type Server struct {
	cfg       Config
	ledger    *ledger
	callbacks *callbacks

	mu       sync.Mutex
	behavior Behavior
	rng      *rand.Rand
	tried    map[string]bool // keys that had their first misfortune
}

// New opens the ledger. The server has to be closed.
func New(cfg Config) (*Server, error) {
	if err := cfg.Behavior.Validate(); err != nil {
		return nil, fmt.Errorf("psp: %w", err)
	}
	l, err := openLedger(cfg.Dir, cfg.Sync)
	if err != nil {
		return nil, fmt.Errorf("psp: %w", err)
	}
	return &Server{
		cfg: cfg, ledger: l, behavior: cfg.Behavior, rng: rand.New(rand.NewPCG(cfg.Seed, 0)), tried: make(map[string]bool),
		callbacks: newCallbacks(func(err error) { cfg.Log.Debug("callback failed", "err", err) }),
	}, nil
}

// Close ends the callbacks and writes the ledger out. No request may be under way: Run has returned.
func (s *Server) Close() error {
	s.callbacks.stop()
	return s.ledger.close()
}

// Run serves on l until ctx ends, and returns when no request is under way.
func (s *Server) Run(ctx context.Context, l net.Listener) error {
	var requests sync.WaitGroup
	handler := s.Handler()
	server := &http.Server{
		ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 30 * time.Second, IdleTimeout: 2 * time.Minute,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			requests.Add(1)
			defer requests.Done()
			handler.ServeHTTP(w, r)
		}),
	}
	done := make(chan error, 1)
	go func() { done <- server.Serve(l) }()
	var failed error
	select {
	case failed = <-done:
	case <-ctx.Done():
		stop, cancel := context.WithTimeout(context.Background(), drainTime)
		defer cancel()
		_ = server.Shutdown(stop) // what has not ended by then, such as a silence, is cut off
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			failed = err
		}
	}
	closed := server.Close()
	requests.Wait()
	if err := errors.Join(failed, closed); err != nil {
		return fmt.Errorf("psp: %w", err)
	}
	return nil
}

// Handler returns the API.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/operations", s.operations)
	mux.HandleFunc("GET /v1/operations/{key}", s.find)
	mux.HandleFunc("GET /v1/ledger", s.list)
	mux.HandleFunc("GET /v1/totals", func(w http.ResponseWriter, _ *http.Request) { respond(w, http.StatusOK, s.ledger.totals()) })
	mux.HandleFunc("GET /v1/behavior", func(w http.ResponseWriter, _ *http.Request) {
		s.mu.Lock()
		b := s.behavior
		s.mu.Unlock()
		respond(w, http.StatusOK, b)
	})
	mux.HandleFunc("PUT /v1/behavior", s.behave)
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) { respond(w, http.StatusOK, "ready") })
	return mux
}

func respond(w http.ResponseWriter, status int, body any) {
	data, err := json.Marshal(body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(data) // the client is gone, and asks again
}

type fault struct {
	Error string `json:"error"`
}

// behave changes what the request names; the rest stays as it is.
func (s *Server) behave(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<16))
	if err != nil {
		respond(w, http.StatusBadRequest, fault{err.Error()})
		return
	}
	b, err := s.change(body)
	if err != nil {
		respond(w, http.StatusBadRequest, fault{err.Error()})
		return
	}
	respond(w, http.StatusOK, b)
}

func (s *Server) change(fields []byte) (Behavior, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.behavior
	d := json.NewDecoder(bytes.NewReader(fields))
	d.DisallowUnknownFields()
	if err := d.Decode(&b); err != nil {
		return b, err
	}
	if err := b.Validate(); err != nil {
		return b, err
	}
	s.behavior = b
	return b, nil
}

func (s *Server) operations(w http.ResponseWriter, r *http.Request) {
	var calls []Call
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBodyBytes)).Decode(&calls); err != nil {
		respond(w, http.StatusBadRequest, fault{"want a list of calls: " + err.Error()})
		return
	}
	if err := check(calls); err != nil {
		respond(w, http.StatusUnprocessableEntity, fault{err.Error()})
		return
	}
	l := s.draw()
	if l.pause > 0 && !wait(r, l.pause) {
		return
	}
	if l.errorBefore {
		respond(w, http.StatusInternalServerError, fault{"simulated: nothing was done"})
		return
	}
	answers, err := s.carryOut(calls, l.behavior.DeclineRate)
	if err != nil {
		s.cfg.Log.Error("ledger failed", "err", err)
		respond(w, http.StatusInternalServerError, fault{"the ledger cannot be written"})
		return
	}
	if url := l.behavior.CallbackURL; url != "" {
		delay := time.Duration(l.behavior.CallbackDelayMS) * time.Millisecond
		for i := range calls {
			if !calls[i].Query && answers[i].Status != Conflict {
				s.callbacks.send(url, &calls[i], delay, l.twice)
			}
		}
	}
	switch {
	case l.muted:
		wait(r, maxSilence)
		panic(http.ErrAbortHandler) // closes the connection without an answer
	case l.errorAfter:
		respond(w, http.StatusInternalServerError, fault{"simulated: it was done all the same"})
	default:
		respond(w, http.StatusOK, answers)
	}
}

// check refuses a request of which a call can never be carried out. Nothing of it has been done then.
func check(calls []Call) error {
	if len(calls) == 0 || len(calls) > MaxCalls {
		return fmt.Errorf("%d calls, want 1 to %d", len(calls), MaxCalls)
	}
	for i := range calls {
		c := &calls[i]
		switch {
		case c.Kind != kindAuthorize && c.Kind != kindCapture && c.Kind != kindVoid && c.Kind != kindRefund:
			return fmt.Errorf("call %d: unknown kind %.40q", i, c.Kind)
		case c.Key == "" || c.PaymentID == "" || max(len(c.Key), len(c.PaymentID), len(c.OrderID)) > maxNameBytes:
			return fmt.Errorf("call %d: key and payment_id are needed, and have at most %d bytes", i, maxNameBytes)
		case !c.Query && (c.Amount <= 0 || c.Amount > maxAmount):
			return fmt.Errorf("call %d: amount %d, want 1 to %d", i, c.Amount, int64(maxAmount))
		case !c.Query && len(c.Currency) != 3:
			return fmt.Errorf("call %d: %.20q is not an ISO 4217 code", i, c.Currency)
		}
	}
	return nil
}

// wait pauses a request; false when its client has gone.
func wait(r *http.Request, pause time.Duration) bool {
	select {
	case <-time.After(pause):
		return true
	case <-r.Context().Done():
		return false
	}
}

// carryOut does each call once per key. When it returns, what was done is on disk.
func (s *Server) carryOut(calls []Call, declineRate float64) ([]Answer, error) {
	answers := make([]Answer, len(calls))
	s.ledger.mu.Lock()
	defer s.ledger.mu.Unlock()
	if s.ledger.fault != nil {
		return nil, s.ledger.fault
	}
	var last uint64
	for i := range calls {
		seq, err := s.one(&calls[i], &answers[i], declineRate)
		if err != nil {
			return nil, err
		}
		last = max(last, seq)
	}
	return answers, s.ledger.wait(last)
}

// one does a call and says on which row its answer stands. The ledger is locked.
func (s *Server) one(c *Call, a *Answer, declineRate float64) (seq uint64, err error) {
	if op := s.ledger.byKey[c.Key]; op != nil {
		*a = answerOf(op)
		if !sameBody(op, c) {
			*a = Answer{Status: Conflict, Code: "key_reused"}
		}
		return op.Seq, nil
	}
	switch {
	case c.Query:
		*a = Answer{Status: NotFound}
		return 0, nil
	case c.Method == MethodError && s.first(c.Key):
		*a = Answer{Status: Unknown, Code: "simulated_error"}
		return 0, nil
	}
	op := &Operation{
		Key: c.Key, PaymentID: c.PaymentID, OrderID: c.OrderID, Kind: c.Kind, Amount: c.Amount, Currency: c.Currency,
		Code: s.refuses(c, declineRate), AtMillis: time.Now().UnixMilli(),
	}
	if op.Declined = op.Code != ""; !op.Declined {
		op.Reference = fmt.Sprintf("psp_%06d", len(s.ledger.rows)+1)
	}
	if err := s.ledger.record(op); err != nil {
		return 0, err
	}
	*a = answerOf(op)
	if c.Method == MethodTimeout {
		*a = Answer{Status: Unknown, Code: "simulated_timeout"}
	}
	return op.Seq, nil
}

// sameBody reports whether c is about op, and if it is not a question, asks for just that.
func sameBody(op *Operation, c *Call) bool {
	same := op.PaymentID == c.PaymentID && op.Kind == c.Kind
	return same && (c.Query || op.Amount == c.Amount && op.Currency == c.Currency && op.OrderID == c.OrderID)
}

// first reports whether a key has not been tried before.
func (s *Server) first(key string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	was := s.tried[key]
	s.tried[key] = true
	return !was
}

// refuses returns the code with which a call is declined, empty when it is carried out.
func (s *Server) refuses(c *Call, declineRate float64) string {
	if code := refusalBy(c.Method, c.Kind); code != "" {
		return code
	}
	if c.Kind == kindAuthorize {
		if s.unlucky(c.Key, declineRate) {
			return "card_declined"
		}
		return ""
	}
	a := s.ledger.accounts[c.PaymentID]
	if a == nil {
		return "not_authorized"
	}
	switch {
	case a.currency != c.Currency:
		return "currency_mismatch"
	case c.Kind == kindRefund && c.Amount > a.captured-a.refunded:
		return "exceeds_captured"
	case c.Kind != kindRefund && c.Amount > a.authorized-a.captured-a.voided:
		return "exceeds_authorized"
	}
	return ""
}

func answerOf(op *Operation) Answer {
	if op.Declined {
		return Answer{Status: Declined, Code: op.Code}
	}
	return Answer{Status: Succeeded, Reference: op.Reference, Amount: op.Amount}
}

func (s *Server) find(w http.ResponseWriter, r *http.Request) {
	op, err := s.ledger.find(r.PathValue("key"))
	switch {
	case err != nil:
		respond(w, http.StatusInternalServerError, fault{"the ledger cannot be written"})
	case op == nil:
		respond(w, http.StatusNotFound, fault{"no operation has this key"})
	default:
		respond(w, http.StatusOK, op)
	}
}

// LedgerPage is a page of the ledger.
type LedgerPage struct {
	Operations []*Operation `json:"operations"`
	HasMore    bool         `json:"has_more"`
}

func (s *Server) list(w http.ResponseWriter, r *http.Request) {
	after, err := number(r, "after", 0)
	limit, err2 := number(r, "limit", defaultPage)
	if err != nil || err2 != nil || limit < 1 || limit > maxPage {
		respond(w, http.StatusBadRequest, fault{fmt.Sprintf("want ?after=SEQ&limit=1..%d", maxPage)})
		return
	}
	page := LedgerPage{}
	page.Operations, page.HasMore = s.ledger.page(after, limit)
	if page.Operations == nil {
		page.Operations = []*Operation{}
	}
	respond(w, http.StatusOK, page)
}

func number(r *http.Request, name string, otherwise uint64) (uint64, error) {
	text := r.URL.Query().Get(name)
	if text == "" {
		return otherwise, nil
	}
	return strconv.ParseUint(text, 10, 63)
}
