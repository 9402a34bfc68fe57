package pspclient

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"hanse/api/paymentpb"
	"hanse/internal/psp"
)

const patience = 5 * time.Second

// provider is one in memory: connections are pipes, and serve has each of them.
type provider struct {
	serve func(net.Conn)
	dials atomic.Int32
}

func (p *provider) dial(context.Context, string, string) (net.Conn, error) {
	p.dials.Add(1)
	ours, theirs := net.Pipe()
	go p.serve(theirs)
	return ours, nil
}

// answering serves HTTP/1.1 with a handler until the connection is closed.
func answering(handle func(calls []psp.Call) (status int, body string)) func(net.Conn) {
	return func(conn net.Conn) {
		defer conn.Close()
		r := bufio.NewReader(conn)
		for {
			req, err := http.ReadRequest(r)
			if err != nil {
				return
			}
			var calls []psp.Call
			if json.NewDecoder(req.Body).Decode(&calls) != nil {
				return
			}
			_, _ = io.Copy(io.Discard, req.Body)
			status, body := handle(calls)
			if _, err := fmt.Fprintf(conn, "HTTP/1.1 %d %s\r\nContent-Length: %d\r\n\r\n%s", status, http.StatusText(status), len(body), body); err != nil {
				return
			}
		}
	}
}

func succeeding(calls []psp.Call) (int, string) {
	answers := make([]psp.Answer, len(calls))
	for i, c := range calls {
		answers[i] = psp.Answer{Status: psp.Succeeded, Reference: "ref " + c.Key, Amount: c.Amount}
	}
	data, err := json.Marshal(answers)
	if err != nil {
		panic(err)
	}
	return http.StatusOK, string(data)
}

func someCalls(n int) []*paymentpb.ProviderCall {
	calls := make([]*paymentpb.ProviderCall, n)
	for i := range calls {
		calls[i] = &paymentpb.ProviderCall{
			PaymentId: fmt.Sprintf("pay_%d", i), OrderId: "ord_1", Kind: paymentpb.OpKind_AUTHORIZE, Amount: int64(i + 1), Currency: "EUR",
			Key: fmt.Sprintf("pay_%d.auth", i), Attempt: 1,
		}
	}
	return calls
}

func TestWhatAnExchangeMeans(t *testing.T) {
	status := func(n int) func(net.Conn) {
		return answering(func([]psp.Call) (int, string) { return n, `{"error":"no"}` })
	}
	body := func(text string) func(net.Conn) {
		return answering(func([]psp.Call) (int, string) { return http.StatusOK, text })
	}
	for _, test := range []struct {
		name  string
		serve func(net.Conn)
		dial  error // instead of a connection
		call  paymentpb.ProviderStatus
		query paymentpb.ProviderStatus
	}{
		{name: "connection refused", dial: errors.New("connect: connection refused"), call: notSent, query: notSent},
		{name: "closed before anything was read", serve: func(c net.Conn) { c.Close() }, call: unknown, query: unknown},
		{name: "closed after the request", serve: func(c net.Conn) { _, _ = c.Read(make([]byte, 1<<16)); c.Close() }, call: unknown, query: unknown},
		{name: "no answer in time", serve: func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }, call: unknown, query: unknown},
		{name: "answer breaks off", serve: func(c net.Conn) {
			_, _ = c.Read(make([]byte, 1<<16))
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n[{")
			c.Close()
		}, call: unknown, query: unknown},
		{name: "500", serve: status(500), call: unknown, query: unknown},
		{name: "503", serve: status(503), call: unknown, query: unknown},
		{name: "redirect", serve: status(307), call: unknown, query: unknown},
		{name: "401", serve: status(401), call: unknown, query: unknown},
		{name: "404", serve: status(404), call: unknown, query: unknown},
		{name: "409", serve: status(409), call: unknown, query: unknown},
		{name: "429", serve: status(429), call: unknown, query: unknown},
		{name: "400", serve: status(400), call: declined, query: unknown},
		{name: "402", serve: status(402), call: declined, query: unknown},
		{name: "422", serve: status(422), call: declined, query: unknown},
		{name: "not JSON", serve: body("<html>"), call: unknown, query: unknown},
		{name: "too few answers", serve: body("[]"), call: unknown, query: unknown},
		{name: "too many answers", serve: body(`[{"status":"succeeded"},{"status":"succeeded"}]`), call: unknown, query: unknown},
		{name: "a status that we do not know", serve: body(`[{"status":"accepted"}]`), call: unknown, query: unknown},
		{name: "key used for something else", serve: body(`[{"status":"conflict"}]`), call: unknown, query: unknown},
		{name: "declined", serve: body(`[{"status":"declined","code":"lost_card"}]`), call: declined, query: declined},
		{name: "not found", serve: body(`[{"status":"not_found"}]`),
			call: paymentpb.ProviderStatus_PROVIDER_NOT_FOUND, query: paymentpb.ProviderStatus_PROVIDER_NOT_FOUND},
		{name: "succeeded", serve: answering(succeeding),
			call: paymentpb.ProviderStatus_PROVIDER_SUCCEEDED, query: paymentpb.ProviderStatus_PROVIDER_SUCCEEDED},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := &provider{serve: test.serve}
				dial := p.dial
				if test.dial != nil {
					dial = func(context.Context, string, string) (net.Conn, error) { return nil, test.dial }
				}
				c := newClient("http://provider", patience, dial)
				defer c.http.CloseIdleConnections()
				for query, want := range map[bool]paymentpb.ProviderStatus{false: test.call, true: test.query} {
					calls := someCalls(1)
					calls[0].Query = query
					began := time.Now()
					got := c.Do(t.Context(), calls)
					if len(got) != 1 || got[0].Status != want {
						t.Errorf("Do(query %v) = %v, want %s", query, got, want)
					}
					if took := time.Since(began); took > patience {
						t.Errorf("Do took %v, want at most the patience of %v", took, patience)
					}
				}
			})
		})
	}
}

func TestAConnectionThatIsNotMadeInTimeIsNotSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClient("http://provider", patience, func(context.Context, string, string) (net.Conn, error) {
			time.Sleep(time.Minute) // the transport dials beyond the request, in the hope of another one
			return nil, errors.New("connect: timeout")
		})
		if got := c.Do(t.Context(), someCalls(1)); got[0].Status != notSent {
			t.Errorf("Do = %v, want not sent", got)
		}
		time.Sleep(time.Minute)
	})
}

func TestAnswersStandWhereTheirCallsDo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var requests atomic.Int32
		p := &provider{serve: answering(func(calls []psp.Call) (int, string) {
			requests.Add(1)
			return succeeding(calls)
		})}
		c := newClient("http://provider", patience, p.dial)
		defer c.http.CloseIdleConnections()
		for _, n := range []int{0, 1, psp.MaxCalls, psp.MaxCalls + 1, 3*psp.MaxCalls - 1} {
			requests.Store(0)
			calls := someCalls(n)
			got := c.Do(t.Context(), calls)
			if len(got) != n {
				t.Fatalf("%d calls have %d answers", n, len(got))
			}
			for i, a := range got {
				if a.Status != paymentpb.ProviderStatus_PROVIDER_SUCCEEDED || a.Reference != "ref "+calls[i].Key || a.Amount != calls[i].Amount {
					t.Fatalf("answer %d of %d is %v", i, n, a)
				}
			}
			if want := int32((n + psp.MaxCalls - 1) / psp.MaxCalls); requests.Load() != want {
				t.Errorf("%d calls took %d requests, want %d", n, requests.Load(), want)
			}
		}
	})
}

func TestConnectionsAreKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &provider{serve: answering(succeeding)}
		c := newClient("http://provider", patience, p.dial)
		defer c.http.CloseIdleConnections()
		for range 10 {
			c.Do(t.Context(), someCalls(2))
			synctest.Wait()
		}
		if p.dials.Load() != 1 {
			t.Errorf("10 requests one after the other made %d connections, want 1", p.dials.Load())
		}
	})
}

func TestOneBadCallDoesNotDeclineTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &provider{serve: answering(func(calls []psp.Call) (int, string) {
			for _, c := range calls {
				if c.PaymentID == "pay_1" {
					return http.StatusUnprocessableEntity, "bad"
				}
			}
			return succeeding(calls)
		})}
		c := newClient("http://provider", patience, p.dial)
		defer c.http.CloseIdleConnections()
		got := c.Do(t.Context(), someCalls(3))
		for i, want := range []paymentpb.ProviderStatus{paymentpb.ProviderStatus_PROVIDER_SUCCEEDED, declined, paymentpb.ProviderStatus_PROVIDER_SUCCEEDED} {
			if got[i].Status != want {
				t.Errorf("answer %d = %v, want %s", i, got[i], want)
			}
		}
		if !strings.Contains(got[1].Code, "422") {
			t.Errorf("the decline's code is %q, want the status in it", got[1].Code)
		}
	})
}

func TestBreakerKeepsCallsBackUntilTheProviderAnswersAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var down atomic.Bool
		var requests atomic.Int32
		p := &provider{serve: answering(func(calls []psp.Call) (int, string) {
			requests.Add(1)
			if down.Load() {
				return http.StatusServiceUnavailable, "down"
			}
			return succeeding(calls)
		})}
		c := newClient("http://provider", patience, p.dial)
		defer c.http.CloseIdleConnections()
		do := func() paymentpb.ProviderStatus { return c.Do(t.Context(), someCalls(1))[0].Status }
		expect := func(what string, got, want paymentpb.ProviderStatus) {
			t.Helper()
			if got != want {
				t.Errorf("%s: %s, want %s", what, got, want)
			}
		}
		down.Store(true)
		for range breakAfter {
			expect("a failure that counts", do(), unknown)
		}
		expect("open", do(), notSent)
		time.Sleep(firstBreak)
		expect("tried again", do(), unknown)
		expect("open again", do(), notSent)
		time.Sleep(firstBreak)
		expect("open twice as long", do(), notSent)
		time.Sleep(firstBreak)
		if n := requests.Load(); n != breakAfter+1 {
			t.Errorf("the provider has seen %d requests, want %d", n, breakAfter+1)
		}
		down.Store(false)
		expect("tried once more", do(), paymentpb.ProviderStatus_PROVIDER_SUCCEEDED)
		expect("closed", do(), paymentpb.ProviderStatus_PROVIDER_SUCCEEDED)
	})
}

func TestBreakerTriesOneAtATime(t *testing.T) {
	now := time.Unix(0, 0)
	var b breaker
	for range breakAfter {
		b.heard(now, false)
	}
	now = now.Add(firstBreak)
	if !b.admits(now) || b.admits(now) {
		t.Error("after the open period one request is admitted, and no second")
	}
	b.abandoned()
	if !b.admits(now) {
		t.Error("after an abandoned try the next is admitted")
	}
	for range 20 {
		b.heard(now, false)
	}
	if !b.until.Equal(now.Add(2 * firstBreak)) {
		t.Errorf("20 failures at once keep it open until %v, want %v: the ones that were out already do not count", b.until, now.Add(2*firstBreak))
	}
	for range 20 {
		now = b.until
		b.admits(now)
		b.heard(now, false)
	}
	if b.pause != maxBreak {
		t.Errorf("open for %v after many tries, want at most %v", b.pause, maxBreak)
	}
}

func TestInstantDeclinesByMethodAndAnswersTheSameAgain(t *testing.T) {
	calls := someCalls(4)
	calls[1].Method = psp.MethodDeclined
	calls[2].Method = psp.MethodNoFunds
	calls[3].Method, calls[3].Kind = psp.MethodDeclined, paymentpb.OpKind_REFUND
	got := Instant{}.Do(t.Context(), calls)
	for i, want := range []*paymentpb.ProviderAnswer{
		{Status: paymentpb.ProviderStatus_PROVIDER_SUCCEEDED, Reference: "pay_0.auth", Amount: 1},
		{Status: declined, Code: "card_declined"},
		{Status: declined, Code: "insufficient_funds"},
		{Status: paymentpb.ProviderStatus_PROVIDER_SUCCEEDED, Reference: "pay_3.auth", Amount: 4},
	} {
		if !got[i].EqualVT(want) {
			t.Errorf("answer %d = %v, want %v", i, got[i], want)
		}
	}
	for _, c := range calls {
		c.Query = true
	}
	for i, a := range (Instant{}).Do(t.Context(), calls) {
		if !a.EqualVT(got[i]) {
			t.Errorf("asked again, answer %d = %v, want %v", i, a, got[i])
		}
	}
}
