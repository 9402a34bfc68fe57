package pspclient

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"sync"
	"sync/atomic"
	"time"

	"hanse/api/paymentpb"
	"hanse/internal/payment"
	"hanse/internal/psp"
)

const (
	// maxConns bounds the connections to the provider. Requests beyond wait for one, within their patience.
	maxConns = 64
	// dialPatience bounds making a connection: a provider that is gone is noticed before the patience for an answer ends.
	dialPatience = 2 * time.Second
	// maxAnswerBytes bounds what is read of a response.
	maxAnswerBytes = 4 << 20

	unknown  = paymentpb.ProviderStatus_PROVIDER_UNKNOWN
	notSent  = paymentpb.ProviderStatus_PROVIDER_NOT_SENT
	declined = paymentpb.ProviderStatus_PROVIDER_DECLINED
)

// client calls a provider over HTTP.
type client struct {
	url      string
	patience time.Duration
	http     *http.Client
	breaker  breaker
}

var _ payment.Provider = (*client)(nil)

// HTTP returns a provider at a base URL. Patience bounds one request, beyond it the outcome is unknown. When
// several requests in a row have had no answer, a breaker keeps calls back for a while: they are not sent.
func HTTP(url string, patience time.Duration) payment.Provider {
	dialer := &net.Dialer{Timeout: dialPatience}
	return newClient(url, patience, dialer.DialContext)
}

func newClient(url string, patience time.Duration, dial func(ctx context.Context, network, addr string) (net.Conn, error)) *client {
	return &client{url: url, patience: patience, http: &http.Client{
		Transport: &http.Transport{
			MaxIdleConns: maxConns, MaxIdleConnsPerHost: maxConns, MaxConnsPerHost: maxConns,
			IdleConnTimeout: time.Minute, DialContext: dial,
		},
		// Where a redirect leads would get the charge too.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// Do implements [payment.Provider]: as many calls as the provider takes travel in one request.
func (c *client) Do(ctx context.Context, calls []*paymentpb.ProviderCall) []*paymentpb.ProviderAnswer {
	answers := make([]*paymentpb.ProviderAnswer, len(calls))
	if len(calls) <= psp.MaxCalls {
		c.batch(ctx, calls, answers)
		return answers
	}
	var parts sync.WaitGroup
	for from := 0; from < len(calls); from += psp.MaxCalls {
		to := min(from+psp.MaxCalls, len(calls))
		parts.Go(func() { c.batch(ctx, calls[from:to], answers[from:to]) })
	}
	parts.Wait()
	return answers
}

// batch sends calls in one request and puts their answers at the same places.
func (c *client) batch(ctx context.Context, calls []*paymentpb.ProviderCall, answers []*paymentpb.ProviderAnswer) {
	if len(calls) == 0 {
		return
	}
	got, failed := c.post(ctx, calls)
	switch {
	case failed == nil:
		for i := range got {
			answers[i] = translate(got[i])
		}
	case failed.refused && len(calls) > 1:
		// One bad call must not decline the others: each goes alone. The provider did nothing, and the keys are the same.
		var alone sync.WaitGroup
		for i := range calls {
			alone.Go(func() { c.batch(ctx, calls[i:i+1], answers[i:i+1]) })
		}
		alone.Wait()
	default:
		for i, call := range calls {
			answers[i] = failed.answer(call)
		}
	}
}

func translate(a psp.Answer) *paymentpb.ProviderAnswer {
	r := &paymentpb.ProviderAnswer{Reference: a.Reference, Code: a.Code, Amount: a.Amount}
	switch a.Status {
	case psp.Succeeded:
		r.Status = paymentpb.ProviderStatus_PROVIDER_SUCCEEDED
	case psp.Declined:
		r.Status = declined
	case psp.NotFound:
		r.Status = paymentpb.ProviderStatus_PROVIDER_NOT_FOUND
	}
	return r // everything else is unknown: a word that we do not know, and a key that was used for something else
}

// failure is a request without answers.
type failure struct {
	status paymentpb.ProviderStatus
	// refused says that the provider will never accept this very request.
	refused bool
	cause   error
}

// answer is what a failure means for one call.
func (f *failure) answer(call *paymentpb.ProviderCall) *paymentpb.ProviderAnswer {
	a := &paymentpb.ProviderAnswer{Status: f.status, Code: f.cause.Error()}
	if f.refused && !call.Query { // that a question was refused says nothing about what it asks for
		a.Status = declined
	}
	return a
}

// refusals are the statuses by which a provider says that the request itself is at fault, whoever sends it whenever. Others of
// the same hundred change with time (409, 429) or with our configuration (401, 403, 404): no reason to tell a customer that the
// card was declined.
var refusals = map[int]bool{
	http.StatusBadRequest: true, http.StatusPaymentRequired: true, http.StatusRequestEntityTooLarge: true,
	http.StatusUnsupportedMediaType: true, http.StatusUnprocessableEntity: true,
}

// post returns the answers, or what is known when there are none. A request that never got a connection was certainly not
// sent; whatever happens later may have happened after the provider had read it.
func (c *client) post(ctx context.Context, calls []*paymentpb.ProviderCall) ([]psp.Answer, *failure) {
	body, err := encode(calls)
	if err != nil {
		return nil, &failure{notSent, false, fmt.Errorf("encode calls: %w", err)}
	}
	var connected atomic.Bool
	requestCtx, cancel := context.WithTimeout(ctx, c.patience)
	defer cancel()
	requestCtx = httptrace.WithClientTrace(requestCtx, &httptrace.ClientTrace{
		GotConn: func(httptrace.GotConnInfo) { connected.Store(true) },
	})
	req, err := http.NewRequestWithContext(requestCtx, http.MethodPost, c.url+"/v1/operations", bytes.NewReader(body))
	if err != nil {
		return nil, &failure{notSent, false, err}
	}
	req.Header.Set("Content-Type", "application/json")
	if !c.breaker.admits(time.Now()) {
		return nil, &failure{notSent, false, errOpen}
	}
	status, data, err := c.exchange(req)
	if ctx.Err() != nil {
		c.breaker.abandoned()
	} else {
		c.breaker.heard(time.Now(), err == nil && status < http.StatusInternalServerError)
	}
	switch {
	case err != nil && !connected.Load():
		return nil, &failure{notSent, false, fmt.Errorf("provider cannot be reached: %w", err)}
	case err != nil:
		return nil, &failure{unknown, false, fmt.Errorf("provider did not answer: %w", err)}
	case status != http.StatusOK:
		return nil, &failure{unknown, refusals[status], fmt.Errorf("provider answered %d: %.200s", status, data)}
	}
	var answers []psp.Answer
	if err := json.Unmarshal(data, &answers); err != nil {
		return nil, &failure{unknown, false, fmt.Errorf("decode the provider's answers: %w", err)}
	}
	if len(answers) != len(calls) {
		return nil, &failure{unknown, false, fmt.Errorf("provider gave %d answers to %d calls", len(answers), len(calls))}
	}
	return answers, nil
}

func encode(calls []*paymentpb.ProviderCall) ([]byte, error) {
	out := make([]psp.Call, len(calls))
	for i, call := range calls {
		out[i] = psp.Call{
			PaymentID: call.PaymentId, OrderID: call.OrderId, Kind: payment.KindName(call.Kind), Amount: call.Amount,
			Currency: call.Currency, Method: call.Method, Key: call.Key, Query: call.Query, Authorization: call.Authorization,
		}
	}
	return json.Marshal(out)
}

// exchange sends req and reads the whole response, so that its connection can be used again.
func (c *client) exchange(req *http.Request) (status int, data []byte, err error) {
	// The transport sends a second time on its own only what it knows was never written to a connection that the
	// provider had closed meanwhile.
	resp, err := c.http.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	data, err = io.ReadAll(io.LimitReader(resp.Body, maxAnswerBytes))
	return resp.StatusCode, data, err
}
