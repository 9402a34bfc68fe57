package payment

import (
	"context"

	"hanse/api/paymentpb"
)

// Provider carries out calls at a payment provider.
//
// Do returns one answer for each call, at the same place. It never fails as a whole: what went wrong is in
// the answers. PROVIDER_NOT_SENT promises that the request did not reach the provider; whenever that is
// not certain the answer is PROVIDER_UNKNOWN, and the payment asks later what became of the key. Ctx bounds the
// waiting. Do may be called concurrently.
type Provider interface {
	Do(ctx context.Context, calls []*paymentpb.ProviderCall) []*paymentpb.ProviderAnswer
}
