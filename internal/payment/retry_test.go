package payment

import (
	"testing"

	"hanse/api/paymentpb"
)

// Found by the simulator (seeds 3446 and 3454): when the provider did not know the key of a stuck operation, it was sent
// five minutes later, and each retry of an operator began these five minutes anew.
func TestRetryOfAStuckOperationThatTheProviderDoesNotKnowIsSentAtOnce(t *testing.T) {
	const late = 1_000_000 // after stuckAfter
	p, s := Decide(nil, &paymentpb.Command{Body: &paymentpb.Command_Authorize{Authorize: &paymentpb.Authorize{
		PaymentId: "pay_1", OrderId: "ord_1", Amount: 500, Currency: "EUR",
	}}}, 1)
	s = Answer(p, s.Call, &paymentpb.ProviderAnswer{Status: paymentpb.ProviderStatus_PROVIDER_UNKNOWN}, late)
	if !s.Op.Stuck || !s.Call.Query || s.NotBefore <= late {
		t.Fatalf("late and without an answer: op %v, call %v at %d; want a stuck operation that is asked about after a pause", s.Op, s.Call, s.NotBefore)
	}
	p, s = Decide(p, &paymentpb.Command{Body: &paymentpb.Command_Retry{Retry: &paymentpb.RetryOp{PaymentId: "pay_1", Op: AuthorizeOp}}}, late)
	if s.Call == nil || !s.Call.Query || s.NotBefore != 0 {
		t.Fatalf("retried by an operator: call %v at %d, want a question at once", s.Call, s.NotBefore)
	}
	s = Answer(p, s.Call, &paymentpb.ProviderAnswer{Status: paymentpb.ProviderStatus_PROVIDER_NOT_FOUND}, late)
	if s.Call == nil || s.Call.Query || s.NotBefore != 0 || s.Call.Key != Key("pay_1", AuthorizeOp) {
		t.Errorf("not found: call %v at %d, want it sent at once under the same key", s.Call, s.NotBefore)
	}
}
