package payment

import "hanse/api/paymentpb"

// The states that [Status] derives.
const (
	None              = "none" // there is no such payment
	Authorizing       = "authorizing"
	Authorized        = "authorized"
	Declined          = "declined"
	Capturing         = "capturing"
	PartiallyCaptured = "partially_captured"
	Captured          = "captured"
	Voiding           = "voiding"
	Voided            = "voided"
	Refunding         = "refunding"
	PartiallyRefunded = "partially_refunded"
	Refunded          = "refunded"
	Unknown           = "unknown"
)

// Statuses lists the states in the order of a payment's life.
func Statuses() []string {
	return []string{
		None, Authorizing, Authorized, Declined, Capturing, PartiallyCaptured, Captured,
		Voiding, Voided, Refunding, PartiallyRefunded, Refunded, Unknown,
	}
}

// Status derives a payment's state from its operation under way, and without one from its amounts. It is for people
// and filters: decisions look at the amounts.
func Status(p *paymentpb.Payment) string {
	if p == nil {
		return None
	}
	if op := underWay(p); op != nil {
		if op.State == paymentpb.OpState_OP_UNKNOWN {
			return Unknown
		}
		switch op.Kind {
		case paymentpb.OpKind_AUTHORIZE:
			return Authorizing
		case paymentpb.OpKind_CAPTURE:
			return Capturing
		case paymentpb.OpKind_VOID:
			return Voiding
		}
		return Refunding
	}
	switch {
	case p.Refunded > 0 && p.Refunded == p.Captured:
		return Refunded
	case p.Refunded > 0:
		return PartiallyRefunded
	case p.Captured > 0 && p.Captured == p.Authorized-p.Voided:
		return Captured
	case p.Captured > 0:
		return PartiallyCaptured
	case p.Voided > 0:
		return Voided
	case p.Authorized > 0:
		return Authorized
	}
	if op := find(p, AuthorizeOp); op != nil && op.State == paymentpb.OpState_OP_DECLINED {
		return Declined
	}
	return Voided // before anything was authorized
}

func kindName(k paymentpb.OpKind) string {
	switch k {
	case paymentpb.OpKind_AUTHORIZE:
		return "authorize"
	case paymentpb.OpKind_CAPTURE:
		return "capture"
	case paymentpb.OpKind_VOID:
		return "void"
	case paymentpb.OpKind_REFUND:
		return "refund"
	}
	return "unspecified"
}

// KindName returns the provider's word for an operation: authorize, capture, void or refund.
func KindName(k paymentpb.OpKind) string { return kindName(k) }

// Waits reports whether an operation's outcome is unknown and the provider will be asked for it: what a callback can speed up.
func Waits(p *paymentpb.Payment) bool {
	op := underWay(p)
	return op != nil && op.State == paymentpb.OpState_OP_UNKNOWN
}
