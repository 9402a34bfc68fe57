package psp

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/datadriven"
	"pgregory.net/rapid"
)

func open(t testing.TB, cfg Config) *Server {
	t.Helper()
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func closeServer(t testing.TB, s *Server) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
}

// request has the server handle a request without a network. A response that is cut off has status 0.
func request(s *Server, method, path string, body any) (status int, data []byte) {
	text, raw := body.(string)
	if !raw && body != nil {
		encoded, err := json.Marshal(body)
		if err != nil {
			panic(err)
		}
		text = string(encoded)
	}
	w := httptest.NewRecorder()
	defer func() {
		if e := recover(); e != nil {
			if err, ok := e.(error); !ok || !errors.Is(err, http.ErrAbortHandler) {
				panic(e)
			}
			status, data = 0, nil
		}
	}()
	s.Handler().ServeHTTP(w, httptest.NewRequest(method, path, strings.NewReader(text)))
	return w.Code, w.Body.Bytes()
}

func do(t testing.TB, s *Server, calls ...Call) []Answer {
	t.Helper()
	status, data := request(s, http.MethodPost, "/v1/operations", calls)
	if status != http.StatusOK {
		t.Fatalf("%v: %d %s", calls, status, data)
	}
	return decode[[]Answer](t, data)
}

func decode[T any](t testing.TB, data []byte) (v T) {
	t.Helper()
	if err := json.Unmarshal(data, &v); err != nil {
		t.Fatalf("decode %s: %v", data, err)
	}
	return v
}

func authorize(payment string, amount int64) Call {
	return Call{PaymentID: payment, OrderID: "o1", Kind: kindAuthorize, Amount: amount, Currency: "EUR", Key: payment + ".auth"}
}

// Scripts: a line is a call, "key kind amount [currency=] [payment=] [order=] [method=]", or "ask key kind".
// The payment is the part of the key before the dot. All lines of a command travel in one request.
func TestScripts(t *testing.T) {
	datadriven.Walk(t, "testdata/scripts", func(t *testing.T, path string) {
		cfg := DefaultConfig()
		cfg.Dir = t.TempDir()
		s := open(t, cfg)
		defer func() { closeServer(t, s) }()
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			switch d.Cmd {
			case "calls":
				status, data := request(s, http.MethodPost, "/v1/operations", parseCalls(t, d.Input))
				if status != http.StatusOK {
					return fmt.Sprintf("%d %s\n", status, data)
				}
				var out strings.Builder
				for _, a := range decode[[]Answer](t, data) {
					fmt.Fprintf(&out, "%s\n", strings.Join(slices.DeleteFunc([]string{a.Status, a.Code, a.Reference, amountOf(a)}, func(s string) bool { return s == "" }), " "))
				}
				return out.String()
			case "restart":
				closeServer(t, s)
				s = open(t, cfg)
				return ""
			case "get", "put":
				status, data := request(s, strings.ToUpper(d.Cmd), d.CmdArgs[0].String(), d.Input)
				return fmt.Sprintf("%d %s\n", status, clean(data))
			}
			t.Fatalf("unknown command %s", d.Cmd)
			return ""
		})
	})
}

func amountOf(a Answer) string {
	if a.Amount == 0 {
		return ""
	}
	return fmt.Sprint(a.Amount)
}

// clean breaks JSON into lines and takes the time out.
func clean(data []byte) string {
	var out bytes.Buffer
	if json.Indent(&out, data, "", " ") != nil {
		return string(data)
	}
	var kept []string
	for line := range strings.Lines(out.String()) {
		if !strings.Contains(line, `"at_millis"`) {
			kept = append(kept, line)
		}
	}
	return strings.Join(kept, "")
}

func parseCalls(t *testing.T, input string) []Call {
	t.Helper()
	var calls []Call
	for line := range strings.Lines(input) {
		words := strings.Fields(line)
		c := Call{OrderID: "o1", Currency: "EUR"}
		if words[0] == "ask" {
			c.Query, words = true, slices.Insert(words[1:], 2, "0")
		}
		c.Key, c.Kind = words[0], words[1]
		c.PaymentID, _, _ = strings.Cut(c.Key, ".")
		if _, err := fmt.Sscan(words[2], &c.Amount); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		for _, w := range words[3:] {
			name, value, _ := strings.Cut(w, "=")
			switch name {
			case "currency":
				c.Currency = value
			case "payment":
				c.PaymentID = value
			case "order":
				c.OrderID = value
			case "method":
				c.Method = value
			default:
				t.Fatalf("%s: unknown word %s", line, w)
			}
		}
		calls = append(calls, c)
	}
	return calls
}

func TestLedgerSurvivesATornEnd(t *testing.T) {
	cfg := DefaultConfig()
	cfg.Dir = t.TempDir()
	path := filepath.Join(cfg.Dir, "ledger.jsonl")
	s := open(t, cfg)
	want := do(t, s, authorize("p1", 100), authorize("p2", 200))
	closeServer(t, s)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := bytes.SplitAfter(whole, []byte("\n"))
	for _, test := range []struct {
		name, content string
		rows          int
		damaged       bool
	}{
		{name: "whole", content: string(whole), rows: 2},
		{name: "no newline", content: string(whole[:len(whole)-1]), rows: 1},
		{name: "half a row", content: string(whole[:len(whole)-20]), rows: 1},
		{name: "zeros behind", content: string(whole) + strings.Repeat("\x00", 512), rows: 2},
		{name: "zeros and the end of a row behind", content: string(whole) + strings.Repeat("\x00", 512) + "\"}\n", rows: 2},
		{name: "nothing", rows: 0},
		{name: "a row is gone", content: string(lines[1]), damaged: true},
		{name: "a row twice", content: string(lines[0]) + string(lines[0]), damaged: true},
		{name: "damage before other rows", content: "garbage\n" + string(whole), damaged: true},
	} {
		t.Run(test.name, func(t *testing.T) {
			if err := os.WriteFile(path, []byte(test.content), 0o600); err != nil {
				t.Fatal(err)
			}
			s, err := New(cfg)
			if test.damaged {
				if err == nil || !strings.Contains(err.Error(), "damaged at byte") {
					t.Fatalf("New = %v, want an error that says where the damage is", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if n := s.ledger.totals().Operations; n != uint64(test.rows) {
				t.Errorf("%d rows are left, want %d", n, test.rows)
			}
			for round := range 2 { // what was lost is done again; the rest has its old answer
				if got := do(t, s, authorize("p1", 100), authorize("p2", 200)); !slices.Equal(got, want) {
					t.Errorf("round %d: answers %v, want %v", round, got, want)
				}
			}
			closeServer(t, s)
			if again, err := os.ReadFile(path); err != nil || bytes.Count(again, []byte("\n")) != 2 || bytes.ContainsRune(again, 0) {
				t.Errorf("the file is %q afterwards (%v), want two rows", again, err)
			}
		})
	}
}

func TestWhatIsNotOnDiskIsNotAnswered(t *testing.T) {
	cfg := DefaultConfig()
	cfg.Dir = t.TempDir()
	s := open(t, cfg)
	do(t, s, authorize("p1", 100))
	if err := s.ledger.file.Close(); err != nil { // the disk fails
		t.Fatal(err)
	}
	for _, calls := range [][]Call{{authorize("p2", 200)}, {authorize("p2", 200)}, {{PaymentID: "p2", Kind: kindAuthorize, Key: "p2.auth", Query: true}}} {
		if status, data := request(s, http.MethodPost, "/v1/operations", calls); status != http.StatusInternalServerError {
			t.Errorf("%v: %d %s, want 500", calls, status, data)
		}
	}
	if rows, more := s.ledger.page(0, 100); len(rows) != 1 || more {
		t.Errorf("the ledger shows %d rows (more: %v), want the one on disk", len(rows), more)
	}
	if status, _ := request(s, http.MethodGet, "/v1/operations/p2.auth", nil); status != http.StatusInternalServerError {
		t.Errorf("the row of an operation that is not on disk: %d, want 500", status)
	}
	if err := s.Close(); err == nil {
		t.Error("Close reports nothing, want the failure of the disk")
	}
}

func TestAKeyIsCarriedOutOnceHoweverManyCall(t *testing.T) {
	cfg := DefaultConfig()
	cfg.Dir = t.TempDir()
	s := open(t, cfg)
	defer closeServer(t, s)
	const callers = 32
	answers := make([]string, callers)
	var wg sync.WaitGroup
	for i := range callers {
		wg.Go(func() {
			calls := []Call{authorize("p1", 100), authorize(fmt.Sprintf("other%d", i), 1)}
			if i%2 == 1 {
				slices.Reverse(calls)
			}
			status, data := request(s, http.MethodPost, "/v1/operations", calls)
			var got []Answer
			if status == http.StatusOK && json.Unmarshal(data, &got) == nil && len(got) == 2 {
				answers[i] = fmt.Sprint(got[i%2])
			}
		})
	}
	wg.Wait()
	for i, a := range answers {
		if a == "" || a != answers[0] {
			t.Errorf("caller %d was answered %q, the first %q", i, a, answers[0])
		}
	}
	if n := s.ledger.totals().Operations; n != callers+1 {
		t.Errorf("the ledger has %d rows, want %d", n, callers+1)
	}
}

func TestDeclinesDependOnSeedAndKeyAlone(t *testing.T) {
	declined := func(seed uint64, batch int) (keys []string) {
		cfg := DefaultConfig()
		cfg.Seed, cfg.Behavior.DeclineRate = seed, 0.25
		s := open(t, cfg)
		defer closeServer(t, s)
		var calls []Call
		for i := range 1000 {
			calls = append(calls, authorize(fmt.Sprintf("p%d", i), 1))
		}
		for part := range slices.Chunk(calls, batch) {
			for i, a := range do(t, s, part...) {
				if a.Status == Declined {
					keys = append(keys, part[i].Key)
				}
			}
		}
		return keys
	}
	one, another := declined(7, 1), declined(7, 250)
	if !slices.Equal(one, another) {
		t.Errorf("the same seed declines %d and %d of 1000, depending on how they come", len(one), len(another))
	}
	if len(one) < 200 || len(one) > 300 {
		t.Errorf("%d of 1000 are declined at a rate of 0.25", len(one))
	}
	if slices.Equal(one, declined(8, 1)) {
		t.Error("another seed declines the same")
	}
}

// Two providers with one ledger would each carry a key out that the other knows.
func TestALedgerHasOneProvider(t *testing.T) {
	cfg := DefaultConfig()
	cfg.Dir = t.TempDir()
	first := open(t, cfg)
	do(t, first, authorize("p1", 100))
	if second, err := New(cfg); err == nil {
		closeServer(t, second)
		t.Error("a second provider has the same ledger")
	} else if want := fmt.Sprintf("%s is used by the provider with process ID %d", cfg.Dir, os.Getpid()); !strings.Contains(err.Error(), want) {
		t.Errorf("New = %v, want %q", err, want)
	}
	closeServer(t, first)
	again := open(t, cfg)
	defer closeServer(t, again)
	if n := again.ledger.totals().Operations; n != 1 {
		t.Errorf("when the first has gone there are %d operations, want its one", n)
	}
}

// What is not named stays: whoever has authorizations declined would stop the callbacks, too.
func TestABehaviorIsChangedInPart(t *testing.T) {
	cfg := DefaultConfig()
	cfg.Behavior = Behavior{CallbackURL: "http://127.0.0.1:7400/v1/callbacks/psp", LatencyMS: 5}
	s := open(t, cfg)
	defer closeServer(t, s)
	for _, test := range []struct {
		body string
		want Behavior
	}{
		{`{"decline_rate":1}`, Behavior{CallbackURL: cfg.Behavior.CallbackURL, LatencyMS: 5, DeclineRate: 1}},
		{`{"latency_ms":0}`, Behavior{CallbackURL: cfg.Behavior.CallbackURL, DeclineRate: 1}},
		{`{"callback_url":"","decline_rate":0}`, Behavior{}},
	} {
		status, data := request(s, http.MethodPut, "/v1/behavior", test.body)
		if got := decode[Behavior](t, data); status != http.StatusOK || got != test.want {
			t.Errorf("PUT %s: %d %s, want %+v", test.body, status, data, test.want)
		}
	}
	for _, body := range []string{`{"error_rate":1,"decline_rate":2}`, `{"error_rate":1,"callback_url":"notaurl"}`, `{"error_rate":1,"rate":1}`, `{`} {
		if status, data := request(s, http.MethodPut, "/v1/behavior", body); status != http.StatusBadRequest {
			t.Errorf("PUT %s: %d %s, want 400", body, status, data)
		}
	}
	_, data := request(s, http.MethodGet, "/v1/behavior", nil)
	if got := decode[Behavior](t, data); got != (Behavior{}) {
		t.Errorf("what was refused has changed it to %s", data)
	}
}

func TestTheDocumentNamesEverySwitch(t *testing.T) {
	doc, err := os.ReadFile("../../docs/provider.md")
	if err != nil {
		t.Fatal(err)
	}
	switches := []string{MethodDeclined, MethodNoFunds, MethodCaptureDeclined, MethodRefundDeclined, MethodTimeout, MethodError}
	for field := range reflect.TypeFor[Behavior]().Fields() {
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		switches = append(switches, name)
	}
	for _, name := range switches {
		if !bytes.Contains(doc, []byte("| `"+name+"` |")) {
			t.Errorf("docs/provider.md has no row for %s", name)
		}
	}
}

func TestMisbehavior(t *testing.T) {
	for _, test := range []struct {
		name     string
		behavior Behavior
		status   int // 0: cut off
		took     [2]time.Duration
		done     bool
	}{
		{name: "none", status: 200, done: true},
		{name: "latency", behavior: Behavior{LatencyMS: 300}, status: 200, took: [2]time.Duration{300 * time.Millisecond, 300 * time.Millisecond}, done: true},
		{name: "jitter", behavior: Behavior{LatencyMS: 300, JitterMS: 100}, status: 200, took: [2]time.Duration{300 * time.Millisecond, 400 * time.Millisecond}, done: true},
		{name: "error before", behavior: Behavior{ErrorRate: 1}, status: 500},
		{name: "error after", behavior: Behavior{ErrorAfterRate: 1}, status: 500, done: true},
		{name: "timeout after success", behavior: Behavior{TimeoutRate: 1}, took: [2]time.Duration{maxSilence, maxSilence}, done: true},
		{name: "decline", behavior: Behavior{DeclineRate: 1}, status: 200, done: true},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := open(t, DefaultConfig())
				defer closeServer(t, s)
				if status, data := request(s, http.MethodPut, "/v1/behavior", test.behavior); status != http.StatusOK {
					t.Fatalf("PUT /v1/behavior: %d %s", status, data)
				}
				began := time.Now()
				status, data := request(s, http.MethodPost, "/v1/operations", []Call{authorize("p1", 100)})
				if took := time.Since(began); status != test.status || took < test.took[0] || took > test.took[1] {
					t.Errorf("answered %d %s after %v, want %d after %v", status, data, took, test.status, test.took)
				}
				if done := s.ledger.totals().Operations == 1; done != test.done {
					t.Errorf("done: %v, want %v", done, test.done)
				}
			})
		})
	}
}

func TestRatesAreKeptAndRepeatable(t *testing.T) {
	outcomes := func() (list []int) {
		cfg := DefaultConfig()
		cfg.Behavior.ErrorRate, cfg.Behavior.ErrorAfterRate = 0.1, 0.2
		s := open(t, cfg)
		defer closeServer(t, s)
		for i := range 1000 {
			status, data := request(s, http.MethodPost, "/v1/operations", []Call{authorize(fmt.Sprintf("p%d", i), 1)})
			if status == http.StatusInternalServerError && bytes.Contains(data, []byte("all the same")) {
				status++
			}
			list = append(list, status)
		}
		return list
	}
	first := outcomes()
	counts := map[int]int{}
	for _, status := range first {
		counts[status]++
	}
	if before, after := counts[500], counts[501]; before < 70 || before > 130 || after < 140 || after > 220 {
		t.Errorf("%d errors before and %d after of 1000, want about 100 and 180", before, after)
	}
	if !slices.Equal(first, outcomes()) {
		t.Error("the same seed and the same requests went another way")
	}
}

// roundTripper is a merchant that is called back.
type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestCallbacks(t *testing.T) {
	for _, test := range []struct {
		name     string
		behavior Behavior
		want     []string
	}{
		{"once", Behavior{}, []string{"0s pay_1.auth", "0s pay_1.c1"}},
		{"late", Behavior{CallbackDelayMS: 2000}, []string{"2s pay_1.auth", "2s pay_1.c1"}},
		{"twice", Behavior{DuplicateRate: 1}, []string{"0s pay_1.auth", "0s pay_1.auth", "0s pay_1.c1", "0s pay_1.c1"}},
		{"without an answer", Behavior{ErrorAfterRate: 1}, []string{"0s pay_1.auth", "0s pay_1.c1"}},
		{"nothing done", Behavior{ErrorRate: 1}, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cfg := DefaultConfig()
				cfg.Behavior = test.behavior
				cfg.Behavior.CallbackURL = "http://merchant/v1/callbacks/psp"
				s := open(t, cfg)
				began := time.Now()
				var mu sync.Mutex
				var got []string
				s.callbacks.http.Transport = roundTripper(func(r *http.Request) (*http.Response, error) {
					mu.Lock()
					defer mu.Unlock()
					var body callbackBody
					if err := json.NewDecoder(r.Body).Decode(&body); err != nil || body.PaymentID != "pay_1" || r.URL.Path != "/v1/callbacks/psp" {
						t.Errorf("called back at %s with %v (%v)", r.URL, body, err)
					}
					got = append(got, fmt.Sprint(time.Since(began), " ", body.Operation))
					return &http.Response{StatusCode: http.StatusAccepted, Body: http.NoBody}, nil
				})
				auth := authorize("pay_1", 100)
				capture := Call{PaymentID: "pay_1", OrderID: "o1", Kind: kindCapture, Amount: 50, Currency: "EUR", Key: "pay_1.c1"}
				question := capture
				question.Query = true
				request(s, http.MethodPost, "/v1/operations", []Call{auth, capture, question}) // the answer is not the point
				time.Sleep(time.Minute)
				closeServer(t, s)
				slices.Sort(got)
				if !slices.Equal(got, test.want) {
					t.Errorf("called back %q, want %q", got, test.want)
				}
			})
		})
	}
}

func TestCallbacksAreBoundedAndEndWithTheServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := DefaultConfig()
		cfg.Behavior.CallbackURL, cfg.Behavior.CallbackDelayMS = "http://merchant", 60_000
		s := open(t, cfg)
		var posted atomic.Int32
		s.callbacks.http.Transport = roundTripper(func(*http.Request) (*http.Response, error) {
			posted.Add(1)
			return nil, errors.New("nobody there")
		})
		for i := range 2 * maxCallbacks {
			do(t, s, authorize(fmt.Sprintf("p%d", i), 1))
		}
		if n := len(s.callbacks.slots); n != maxCallbacks {
			t.Errorf("%d callbacks wait, want %d", n, maxCallbacks)
		}
		began := time.Now()
		closeServer(t, s)
		if took := time.Since(began); took > 0 || posted.Load() != 0 {
			t.Errorf("Close took %v and %d were posted, want none and at once", took, posted.Load())
		}
	})
}

func TestRunEndsWithItsContext(t *testing.T) {
	s := open(t, DefaultConfig())
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx, l) }()
	resp, err := http.Post("http://"+l.Addr().String()+"/v1/operations", "application/json",
		strings.NewReader(`[{"payment_id":"p1","kind":"authorize","amount":1,"currency":"EUR","key":"p1.auth"}]`))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var answers []Answer
	if err := json.NewDecoder(resp.Body).Decode(&answers); err != nil || len(answers) != 1 || answers[0].Status != Succeeded {
		t.Errorf("answered %v (%v), want one success", answers, err)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("Run = %v, want nil", err)
	}
	closeServer(t, s)
}

// Whatever is asked for in whatever order: the sums stay within one another, the totals are those of the rows, and a restart
// changes nothing.
func TestBooksAlwaysBalance(t *testing.T) {
	dir := t.TempDir()
	round := 0
	rapid.Check(t, func(rt *rapid.T) {
		cfg := DefaultConfig()
		round++
		cfg.Dir, cfg.Sync = filepath.Join(dir, fmt.Sprint(round)), false
		s := open(t, cfg)
		for range rapid.IntRange(1, 40).Draw(rt, "calls") {
			p := rapid.SampledFrom([]string{"p1", "p2"}).Draw(rt, "payment")
			do(t, s, Call{
				PaymentID: p, Kind: rapid.SampledFrom([]string{kindAuthorize, kindCapture, kindVoid, kindRefund}).Draw(rt, "kind"),
				Amount: rapid.Int64Range(1, 6).Draw(rt, "amount"), Currency: rapid.SampledFrom([]string{"EUR", "USD"}).Draw(rt, "currency"),
				Key: p + "." + rapid.StringMatching("[a-h]").Draw(rt, "key"),
			})
		}
		sums := map[string]*account{}
		rows, _ := s.ledger.page(0, maxPage)
		for i, op := range rows {
			a := sums[op.PaymentID]
			if a == nil {
				a = &account{}
				sums[op.PaymentID] = a
			}
			if op.Seq != uint64(i)+1 {
				rt.Fatalf("row %d has number %d", i+1, op.Seq)
			}
			if op.Declined {
				continue
			}
			switch op.Kind {
			case kindAuthorize:
				a.authorized += op.Amount
			case kindCapture:
				a.captured += op.Amount
			case kindVoid:
				a.voided += op.Amount
			case kindRefund:
				a.refunded += op.Amount
			}
			if a.captured+a.voided > a.authorized || a.refunded > a.captured {
				rt.Fatalf("after row %d payment %s has %+v", op.Seq, op.PaymentID, a)
			}
		}
		before := s.ledger.totals()
		closeServer(t, s)
		s = open(t, cfg)
		defer closeServer(t, s)
		again, _ := s.ledger.page(0, maxPage)
		if a, b := fmt.Sprint(encoded(t, rows), encoded(t, before)), fmt.Sprint(encoded(t, again), encoded(t, s.ledger.totals())); a != b {
			rt.Fatalf("before the restart: %s\nafter: %s", a, b)
		}
	})
}

func encoded(t testing.TB, v any) string {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func FuzzReplayOfALedger(f *testing.F) {
	f.Add([]byte(`{"seq":1,"key":"p.auth","payment_id":"p","order_id":"o","kind":"authorize","amount":1,"currency":"EUR","reference":"psp_000001","at_millis":1}` + "\n"))
	f.Add([]byte("{}\n"))
	f.Add([]byte("null\n\x00"))
	f.Fuzz(func(t *testing.T, data []byte) {
		l, err := openLedger("", false)
		if err != nil {
			t.Fatal(err)
		}
		end, err := l.replay(bytes.NewReader(data))
		if err != nil {
			return
		}
		if end < 0 || end > int64(len(data)) || bytes.Count(data[:end], []byte("\n")) != len(l.rows) {
			t.Errorf("replay ends at %d of %d with %d rows", end, len(data), len(l.rows))
		}
	})
}

// One core must carry out more than 8,000 operations a second; a request has as many as a node sends at once.
func BenchmarkOperations(b *testing.B) {
	for _, bench := range []struct {
		name string
		sync bool
		size int
	}{{"synced, 32 in a request", true, 32}, {"unsynced, 32 in a request", false, 32}, {"unsynced, alone", false, 1}} {
		b.Run(bench.name, func(b *testing.B) {
			cfg := DefaultConfig()
			cfg.Dir, cfg.Sync = b.TempDir(), bench.sync
			s := open(b, cfg)
			defer closeServer(b, s)
			var n atomic.Int64
			b.ReportAllocs()
			b.SetParallelism(16)
			b.RunParallel(func(pb *testing.PB) {
				for more := true; more; {
					calls := make([]Call, 0, bench.size)
					for len(calls) < bench.size && more {
						if more = pb.Next(); more {
							calls = append(calls, authorize(fmt.Sprintf("pay_%026d", n.Add(1)), 100))
						}
					}
					if len(calls) > 0 {
						if status, data := request(s, http.MethodPost, "/v1/operations", calls); status != http.StatusOK {
							b.Errorf("%d %s", status, data)
							return
						}
					}
				}
			})
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "operations/s")
		})
	}
}
