// Package pspclient calls payment providers: the simulated one over HTTP, or none at all.
package pspclient

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"hanse/api/paymentpb"
	"hanse/internal/payment"
	"hanse/internal/psp"
)

// Instant accepts every operation at once and remembers nothing. It is for benchmarks and for trying things out. The methods that
// the simulated provider declines it declines too.
type Instant struct{}

// Do implements [payment.Provider].
func (Instant) Do(_ context.Context, calls []*paymentpb.ProviderCall) []*paymentpb.ProviderAnswer {
	answers := make([]*paymentpb.ProviderAnswer, len(calls))
	for i, c := range calls {
		a := &paymentpb.ProviderAnswer{Status: paymentpb.ProviderStatus_PROVIDER_SUCCEEDED, Reference: c.Key, Amount: c.Amount}
		if c.Method == psp.MethodDeclined || c.Method == psp.MethodNoFunds {
			a = &paymentpb.ProviderAnswer{Status: paymentpb.ProviderStatus_PROVIDER_DECLINED, Code: "card_declined"}
		}
		answers[i] = a
	}
	return answers
}

// client calls a provider over HTTP.
type client struct {
	url      string
	patience time.Duration
	http     *http.Client
}

var _ payment.Provider = (*client)(nil)

// HTTP returns a provider at a base URL. Patience bounds one request; beyond it the outcome is unknown.
func HTTP(url string, patience time.Duration) payment.Provider {
	return &client{url: url, patience: patience, http: &http.Client{
		Transport: &http.Transport{
			MaxIdleConns: 64, MaxIdleConnsPerHost: 64, MaxConnsPerHost: 64, IdleConnTimeout: time.Minute,
			DialContext: (&net.Dialer{Timeout: 2 * time.Second}).DialContext,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// Do implements [payment.Provider]: all calls travel in one request.
func (c *client) Do(ctx context.Context, calls []*paymentpb.ProviderCall) []*paymentpb.ProviderAnswer {
	out := make([]psp.Call, len(calls))
	for i, call := range calls {
		out[i] = psp.Call{
			PaymentID: call.PaymentId, OrderID: call.OrderId, Kind: payment.KindName(call.Kind), Amount: call.Amount,
			Currency: call.Currency, Method: call.Method, Key: call.Key, Query: call.Query, Authorization: call.Authorization,
		}
	}
	answers, status, err := c.post(ctx, out)
	result := make([]*paymentpb.ProviderAnswer, len(calls))
	for i := range calls {
		if err != nil {
			result[i] = &paymentpb.ProviderAnswer{Status: status, Code: err.Error()}
			continue
		}
		result[i] = translate(answers[i])
	}
	return result
}

func translate(a psp.Answer) *paymentpb.ProviderAnswer {
	r := &paymentpb.ProviderAnswer{Reference: a.Reference, Code: a.Code, Amount: a.Amount}
	switch a.Status {
	case psp.Succeeded:
		r.Status = paymentpb.ProviderStatus_PROVIDER_SUCCEEDED
	case psp.Declined:
		r.Status = paymentpb.ProviderStatus_PROVIDER_DECLINED
	case psp.NotFound:
		r.Status = paymentpb.ProviderStatus_PROVIDER_NOT_FOUND
	}
	return r
}

// post returns the answers, or what is known when there are none: only a connection that was never made shows that nothing was sent.
func (c *client) post(ctx context.Context, calls []psp.Call) ([]psp.Answer, paymentpb.ProviderStatus, error) {
	const unknown, notSent = paymentpb.ProviderStatus_PROVIDER_UNKNOWN, paymentpb.ProviderStatus_PROVIDER_NOT_SENT
	body, err := json.Marshal(calls)
	if err != nil {
		return nil, notSent, fmt.Errorf("encode calls: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, c.patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url+"/v1/operations", bytes.NewReader(body))
	if err != nil {
		return nil, notSent, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.GetBody = nil // the transport must not send it a second time on its own
	resp, err := c.http.Do(req)
	if err != nil {
		var op *net.OpError
		if errors.As(err, &op) && op.Op == "dial" {
			return nil, notSent, fmt.Errorf("provider cannot be reached: %w", op)
		}
		return nil, unknown, fmt.Errorf("provider did not answer: %w", err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, 4<<20))
	if err != nil {
		return nil, unknown, fmt.Errorf("provider's answer broke off: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, unknown, fmt.Errorf("provider answered %s: %.200s", resp.Status, data)
	}
	var answers []psp.Answer
	if err := json.Unmarshal(data, &answers); err != nil || len(answers) != len(calls) {
		return nil, unknown, fmt.Errorf("provider answered %d calls with %d answers (%v)", len(calls), len(answers), err)
	}
	return answers, 0, nil
}
