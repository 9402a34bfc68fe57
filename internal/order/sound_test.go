package order

import (
	"testing"

	"hanse/api/orderpb"
)

// sound checks what must hold for every order at every version, from its events alone.
func sound(t interface {
	Helper()
	Errorf(string, ...any)
}, name string, s *story) {
	t.Helper()
	if replayed := Replay(s.events); !replayed.EqualVT(s.o) {
		t.Errorf("%s: the order is not the fold of its events:\n%v\n%v", name, s.o, replayed)
	}
	o := s.o
	var total, fulfilled, captured, captureRequested, returned, refundRequested, refunded int64
	for i, l := range o.Lines {
		total += l.Total
		fulfilled += l.Fulfilled * l.UnitPrice
		returned += l.Returned * l.UnitPrice
		if l.No != uint32(i)+1 || l.Total != l.Quantity*l.UnitPrice {
			t.Errorf("%s: line %v", name, l)
		}
		if l.Canceled < 0 || l.Fulfilled < 0 || l.Canceled+l.Fulfilled > l.Quantity || l.Returned < 0 || l.Returned > l.Fulfilled {
			t.Errorf("%s: quantities of line %v", name, l)
		}
	}
	for _, f := range o.Fulfillments {
		captureRequested += f.Amount
		captured += f.Captured
		if f.Captured != 0 && f.Captured != f.Amount {
			t.Errorf("%s: captured %d of fulfillment %v", name, f.Captured, f)
		}
		if f.CaptureFailed == GivenUp {
			captureRequested -= f.Amount
		}
	}
	for _, r := range o.Refunds {
		if r.Failed != GivenUp {
			refundRequested += r.Amount
		}
		if r.Done {
			refunded += r.Amount
		}
	}
	if total != o.Total || fulfilled < captureRequested || captured != o.Captured || captureRequested != o.CaptureRequested ||
		refundRequested != o.RefundRequested || refunded != o.Refunded {
		t.Errorf("%s: sums of lines %d, fulfilled %d, captured %d of %d, refunded %d of %d: %v",
			name, total, fulfilled, captured, captureRequested, refunded, refundRequested, o)
	}
	if o.Refunded > o.RefundRequested || o.RefundRequested > o.CaptureRequested || o.Captured > o.CaptureRequested ||
		o.CaptureRequested > o.Authorized || o.Captured+o.Voided > o.Authorized || o.Authorized > o.Total {
		t.Errorf("%s: money: refunded %d of %d, captured %d of %d, voided %d, authorized %d, total %d",
			name, o.Refunded, o.RefundRequested, o.Captured, o.CaptureRequested, o.Voided, o.Authorized, o.Total)
	}
	if Ended(o.State) {
		if countLegs(o, orderpb.LegState_LEG_PENDING, orderpb.LegState_LEG_HELD, orderpb.LegState_LEG_RELEASING) > 0 {
			t.Errorf("%s: it has ended as %s and holds stock: %v", name, StateName(o.State), o.Legs)
		}
		if paymentNeedsVoid(o) || o.Payment == orderpb.PaymentStep_PAYMENT_VOIDING || o.Authorized != o.Voided {
			t.Errorf("%s: it has ended as %s and holds money: %v, authorized %d, voided %d", name, StateName(o.State), o.Payment, o.Authorized, o.Voided)
		}
	}
	if o.State == Confirmed && o.Total > 0 && o.Authorized != o.Total {
		t.Errorf("%s: confirmed with %d of %d authorized", name, o.Authorized, o.Total)
	}
}

func TestVariantsAreSound(t *testing.T) {
	for _, v := range variants {
		if v.state != Completed {
			sound(t, v.name, v.make())
		}
	}
}
