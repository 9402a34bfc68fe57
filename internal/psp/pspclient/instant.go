package pspclient

import (
	"context"

	"hanse/api/paymentpb"
	"hanse/internal/payment"
	"hanse/internal/psp"
)

// Instant accepts every operation at once and remembers nothing. It is for benchmarks and for trying things out. The methods that
// the simulated provider declines it declines too.
type Instant struct{}

var _ payment.Provider = Instant{}

// Do implements [payment.Provider]. The same call always gets the same answer, so a question is answered like its call.
func (Instant) Do(_ context.Context, calls []*paymentpb.ProviderCall) []*paymentpb.ProviderAnswer {
	answers := make([]*paymentpb.ProviderAnswer, len(calls))
	for i, c := range calls {
		if code := psp.Declines(c.Method); code != "" && c.Kind == paymentpb.OpKind_AUTHORIZE {
			answers[i] = &paymentpb.ProviderAnswer{Status: declined, Code: code}
			continue
		}
		answers[i] = &paymentpb.ProviderAnswer{Status: paymentpb.ProviderStatus_PROVIDER_SUCCEEDED, Reference: c.Key, Amount: c.Amount}
	}
	return answers
}
