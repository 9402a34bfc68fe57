package payment

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"hanse/api/paymentpb"
	"hanse/internal/invariant"
	"hanse/internal/reject"
)

const (
	// MaxAmount bounds an amount, in minor units: sums of MaxOps amounts stay far below an int64's end.
	MaxAmount = 1_000_000_000_000_000
	// MaxOps bounds the operations of a payment. An order has at most 1,000 fulfillments and 1,000 refunds.
	MaxOps = 4096
	// maxIDBytes bounds the identifiers, maxTextBytes the texts of operators and providers that are stored.
	maxIDBytes   = 128
	maxTextBytes = 500

	// AuthorizeOp is the ID of a payment's authorization, VoidOp of a void that names no other.
	AuthorizeOp = "auth"
	VoidOp      = "void"
)

// Step is what a decision brings about besides the changed payment.
type Step struct {
	// Rejection refuses the command; nothing has changed.
	Rejection *reject.Rejection
	// Op is the operation that the command is about, nil for none. Its [Outcome] is the answer.
	Op *paymentpb.Op
	// Changed says that the payment has to be stored.
	Changed bool
	// Recall says that the payment's earlier call, if it has not been answered, is to be dropped.
	Recall bool
	// Call is to be sent to the provider, not before NotBefore (0: at once). A payment has at most one
	// call under way.
	Call      *paymentpb.ProviderCall
	NotBefore int64
	// Settled are the keys of the operations that have reached their outcome.
	Settled []string
}

// Key is an operation's idempotency key at the provider, and the name under which callers wait for it.
func Key(paymentID, op string) string { return paymentID + "." + op }

// SplitKey undoes Key: a payment ID has no dot.
func SplitKey(key string) (paymentID, op string, ok bool) { return strings.Cut(key, ".") }

// PaymentID returns the payment that a command is about; empty for a command without body.
func PaymentID(c *paymentpb.Command) string {
	switch c := c.GetBody().(type) {
	case *paymentpb.Command_Authorize:
		return c.Authorize.GetPaymentId()
	case *paymentpb.Command_Capture:
		return c.Capture.GetPaymentId()
	case *paymentpb.Command_Void:
		return c.Void.GetPaymentId()
	case *paymentpb.Command_Refund:
		return c.Refund.GetPaymentId()
	case *paymentpb.Command_Wake:
		return c.Wake.GetPaymentId()
	case *paymentpb.Command_Retry:
		return c.Retry.GetPaymentId()
	case *paymentpb.Command_Resolve:
		return c.Resolve.GetPaymentId()
	}
	return ""
}

// OperationOf returns the payment that a command is about, and its operation.
func OperationOf(c *paymentpb.Command) (paymentID, op string) {
	op = AuthorizeOp
	switch c := c.GetBody().(type) {
	case *paymentpb.Command_Capture:
		op = c.Capture.GetOp()
	case *paymentpb.Command_Void:
		op = cmp.Or(c.Void.GetOp(), VoidOp)
	case *paymentpb.Command_Refund:
		op = c.Refund.GetOp()
	}
	return PaymentID(c), op
}

// Decide applies a command to the payment it names, nil when there is none, at the time now. It changes p in place
// and returns it, or the payment it created.
func Decide(p *paymentpb.Payment, c *paymentpb.Command, now int64) (*paymentpb.Payment, Step) {
	id := PaymentID(c)
	if !validID(id) {
		return p, refuse(reject.InvalidID, "a payment ID has 1 to %d bytes and no dot", maxIDBytes)
	}
	var s Step
	from, on := Status(p), OnAuthorize
	word := wordOf(c)
	switch c := c.Body.(type) {
	case *paymentpb.Command_Authorize:
		p, s = authorize(p, c.Authorize, now)
	case *paymentpb.Command_Void:
		on = OnVoid
		p, s = void(p, c.Void, now)
	default:
		if p == nil {
			return nil, refuse(reject.PaymentNotFound, "there is no payment %s", id)
		}
		on, s = decideExisting(p, c, now)
	}
	if word != nil {
		on = OnWord
	}
	if s.Changed {
		stored(p, from, on, now)
	}
	return p, s
}

// wordOf returns the operator's word that a command may have instead of a wish, nil when it has none.
func wordOf(c *paymentpb.Command) *paymentpb.Word {
	switch c := c.Body.(type) {
	case *paymentpb.Command_Authorize:
		return c.Authorize.GetWord()
	case *paymentpb.Command_Capture:
		return c.Capture.GetWord()
	case *paymentpb.Command_Void:
		return c.Void.GetWord()
	case *paymentpb.Command_Refund:
		return c.Refund.GetWord()
	}
	return nil
}

func validID(id string) bool { return id != "" && len(id) <= maxIDBytes && !strings.Contains(id, ".") }

func decideExisting(p *paymentpb.Payment, body any, now int64) (Input, Step) {
	switch c := body.(type) {
	case *paymentpb.Command_Capture:
		return OnCapture, capture(p, c.Capture, now)
	case *paymentpb.Command_Refund:
		return OnRefund, refund(p, c.Refund, now)
	case *paymentpb.Command_Wake:
		return OnWake, wake(p, now)
	case *paymentpb.Command_Retry:
		return OnRetry, retry(p, c.Retry, now)
	}
	return OnResolve, resolve(p, body.(*paymentpb.Command_Resolve).Resolve, now) // PaymentID knows no other
}

func authorize(p *paymentpb.Payment, c *paymentpb.Authorize, now int64) (*paymentpb.Payment, Step) {
	if p != nil {
		if op := find(p, AuthorizeOp); op != nil {
			if p.Requested != c.Amount || p.Currency != c.Currency || p.OrderId != c.OrderId || p.Method != c.Method {
				return p, refuse(reject.PaymentMismatch, "payment %s is about %d %s of order %s by %q, not %d %s of order %s by %q",
					p.Id, p.Requested, p.Currency, p.OrderId, p.Method, c.Amount, c.Currency, c.OrderId, c.Method)
			}
			return p, known(p, Step{Op: op}, c.Word, now)
		}
	}
	if r := checkAuthorize(c); r != nil {
		return p, Step{Rejection: r}
	}
	// A payment without authorization is the stub that an early void left: it refuses for good, however late this comes.
	if p == nil {
		if late := now - c.Expires; isLate(c, now) && c.Answer == nil && c.Word == nil {
			return nil, refuse(reject.MessageExpired, "the authorization came %d ms too late", late)
		}
		p = &paymentpb.Payment{Id: c.PaymentId, CreatedAt: now}
	}
	s := Step{Op: request(p, c, now), Changed: true}
	switch {
	case p.VoidRequested:
		finish(p, s.Op, paymentpb.OpState_OP_CANCELED, "voided_before", "", now, &s)
		advance(p, now, &s)
	case c.Answer != nil:
		s.Op.State, s.Op.Attempts = paymentpb.OpState_OP_SENT, 1
		settle(p, s.Op, false, c.Answer, now, &s)
	default:
		begin(p, c.Word, now, &s)
	}
	return p, s
}

// begin sends the operation that has been added, unless others are before it; or takes an operator's word that it has been done.
func begin(p *paymentpb.Payment, w *paymentpb.Word, now int64, s *Step) {
	if w != nil {
		before := underWay(p)
		byWord(p, w, now, s)
		s.Recall = before != nil && isFinished(before)
	}
	advance(p, now, s)
}

// byWord ends the operation of s. Who says that a payment is voided says too what became of an authorization without outcome: it is given back.
func byWord(p *paymentpb.Payment, w *paymentpb.Word, now int64, s *Step) {
	end := func(op *paymentpb.Op) {
		finish(p, op, paymentpb.OpState_OP_SUCCEEDED, byOperator(w.Operator), w.Evidence, now, s)
	}
	if s.Op.Kind == paymentpb.OpKind_VOID {
		if auth := find(p, AuthorizeOp); auth != nil && !isFinished(auth) {
			end(auth)
		}
		s.Op.Amount = room(p, paymentpb.OpKind_VOID)
	}
	end(s.Op)
}

// known answers a command about an operation that is there already. One that has ended stays as it is, whatever the word.
func known(p *paymentpb.Payment, s Step, w *paymentpb.Word, now int64) Step {
	if w == nil || s.Op == nil || isFinished(s.Op) {
		return s
	}
	s.Changed = true
	begin(p, w, now, &s)
	return s
}

const resolvedPrefix = "resolved by "

// byOperator is the code of an operation that a word has ended.
func byOperator(operator string) string { return resolvedPrefix + cmp.Or(operator, "an operator") }

// IsResolved reports whether an operation ended by an operator's word, from its code: the provider need not have done the same.
func IsResolved(code string) bool { return strings.HasPrefix(code, resolvedPrefix) }

// request notes the authorization that a payment is about.
func request(p *paymentpb.Payment, c *paymentpb.Authorize, now int64) *paymentpb.Op {
	p.OrderId, p.Currency, p.Method, p.Requested = c.OrderId, c.Currency, c.Method, c.Amount
	return add(p, paymentpb.OpKind_AUTHORIZE, AuthorizeOp, c.Amount, now)
}

func checkAuthorize(c *paymentpb.Authorize) *reject.Rejection {
	switch {
	case c.Amount <= 0 || c.Amount > MaxAmount:
		return rejection(reject.InvalidAmount, "cannot authorize %d: an amount is 1 to %d", c.Amount, int64(MaxAmount))
	case len(c.Currency) != 3:
		return rejection(reject.InvalidCurrency, "%.20q is not an ISO 4217 code", c.Currency)
	case len(c.OrderId) > maxIDBytes || len(c.Method) > maxIDBytes:
		return rejection(reject.InvalidRequest, "order ID and method have at most %d bytes", maxIDBytes)
	}
	return nil
}

func isLate(c *paymentpb.Authorize, now int64) bool { return c.Expires != 0 && now > c.Expires }

func void(p *paymentpb.Payment, c *paymentpb.Void, now int64) (*paymentpb.Payment, Step) {
	id := c.Op
	if id == "" {
		id = VoidOp
	}
	if p != nil {
		if other := underWay(p); c.Word != nil && other != nil && other.Id != id && other.Kind != paymentpb.OpKind_AUTHORIZE {
			return p, refuse(reject.PaymentState, "what there is to void is not known before %s of payment %s has ended", other.Id, p.Id)
		}
		if s, done := repeated(p, paymentpb.OpKind_VOID, id, 0); done {
			return p, known(p, s, c.Word, now)
		}
	}
	if r := checkOp(p, id); r != nil {
		return p, Step{Rejection: r}
	}
	s := Step{Changed: true}
	if p == nil {
		if a := c.Authorize; a != nil {
			if r := checkAuthorize(a); r != nil {
				return nil, Step{Rejection: r}
			}
		}
		p = &paymentpb.Payment{Id: c.PaymentId, CreatedAt: now}
		if a := c.Authorize; a != nil { // it may be on its way: there is a moment until the provider is asked
			if op := request(p, a, now); c.Word == nil {
				ask(p, op, now+pause(op), now, &s)
			}
		}
	}
	p.VoidRequested = true
	s.Op = add(p, paymentpb.OpKind_VOID, id, 0, now)
	begin(p, c.Word, now, &s)
	return p, s
}

func capture(p *paymentpb.Payment, c *paymentpb.Capture, now int64) Step {
	if s, done := repeated(p, paymentpb.OpKind_CAPTURE, c.Op, c.Amount); done {
		return known(p, s, c.Word, now)
	}
	if r := checkAmount(p, c.Op, c.Amount); r != nil {
		return Step{Rejection: r}
	}
	if p.VoidRequested {
		return refuse(reject.PaymentState, "payment %s is voided: nothing more can be captured", p.Id)
	}
	if promised := p.Captured + unfinished(p, paymentpb.OpKind_CAPTURE); promised+c.Amount > p.Authorized {
		return refuse(reject.PaymentState, "cannot capture %d: %d are authorized and %d of them captured or about to be",
			c.Amount, p.Authorized, promised)
	}
	s := Step{Op: add(p, paymentpb.OpKind_CAPTURE, c.Op, c.Amount, now), Changed: true}
	begin(p, c.Word, now, &s)
	return s
}

func refund(p *paymentpb.Payment, c *paymentpb.Refund, now int64) Step {
	s, repeat := repeated(p, paymentpb.OpKind_REFUND, c.Op, c.Amount)
	if repeat && (c.Word == nil || s.Op == nil || isFinished(s.Op)) {
		return s
	}
	if c.Word != nil { // what is paid out has been captured
		others := unfinished(p, paymentpb.OpKind_REFUND)
		if repeat {
			others -= s.Op.Amount
		}
		if p.Refunded+others+c.Amount > p.Captured {
			return refuse(reject.PaymentState, "cannot have refunded %d: %d are captured, and %d of them refunded or about to be", c.Amount, p.Captured, p.Refunded+others)
		}
	}
	if repeat {
		return known(p, s, c.Word, now)
	}
	if r := checkAmount(p, c.Op, c.Amount); r != nil {
		return Step{Rejection: r}
	}
	captured := p.Captured + unfinished(p, paymentpb.OpKind_CAPTURE)
	if promised := p.Refunded + unfinished(p, paymentpb.OpKind_REFUND); promised+c.Amount > captured {
		return refuse(reject.PaymentState, "cannot refund %d: %d are captured or about to be, and %d of them refunded or about to be",
			c.Amount, captured, promised)
	}
	s = Step{Op: add(p, paymentpb.OpKind_REFUND, c.Op, c.Amount, now), Changed: true}
	begin(p, c.Word, now, &s)
	return s
}

// wake makes a question that waits for its time go out at once. A callback is a hint and proves nothing, so
// that is all it does; and it does nothing while a call is under way, so a flood of them costs no calls.
func wake(p *paymentpb.Payment, now int64) Step {
	op := underWay(p)
	if op == nil || op.NextTry <= now {
		return Step{}
	}
	s := Step{Changed: true, Recall: true}
	ask(p, op, 0, now, &s)
	return s
}

func retry(p *paymentpb.Payment, c *paymentpb.RetryOp, now int64) Step {
	op := find(p, c.Op)
	if op == nil {
		return refuse(reject.PaymentState, "payment %s has no operation %.100q", p.Id, c.Op)
	}
	if c.RefuseEnded && isFinished(op) {
		return ended(op)
	}
	if op.State != paymentpb.OpState_OP_SENT && op.State != paymentpb.OpState_OP_UNKNOWN {
		return Step{Op: op}
	}
	s := Step{Op: op, Changed: true, Recall: true}
	ask(p, op, 0, now, &s)
	return s
}

// resolve takes an operator's word for what happened. The evidence becomes the provider's reference of an
// operation that succeeded, because later captures have to name the authorization.
func resolve(p *paymentpb.Payment, c *paymentpb.ResolveOp, now int64) Step {
	op := find(p, c.Op)
	switch {
	case op == nil:
		return refuse(reject.PaymentState, "payment %s has no operation %.100q", p.Id, c.Op)
	case c.RefuseEnded && isFinished(op):
		return ended(op)
	case isFinished(op):
		return Step{Op: op}
	case op.State != paymentpb.OpState_OP_UNKNOWN && !op.Stuck:
		return refuse(reject.PaymentState, "operation %s is neither unknown nor stuck: its own outcome comes", op.Id)
	case c.Operator == "" || c.Evidence == "" || len(c.Operator) > maxIDBytes || len(c.Evidence) > maxTextBytes:
		return refuse(reject.InvalidRequest, "a decision needs an operator (up to %d bytes) and evidence (up to %d)",
			maxIDBytes, maxTextBytes)
	}
	s := Step{Op: op, Changed: true, Recall: true}
	if c.Succeeded {
		finish(p, op, paymentpb.OpState_OP_SUCCEEDED, resolvedPrefix+c.Operator, c.Evidence, now, &s)
	} else {
		finish(p, op, paymentpb.OpState_OP_DECLINED, resolvedPrefix+c.Operator+": "+c.Evidence, "", now, &s)
	}
	advance(p, now, &s)
	return s
}

// ended refuses to settle an operation that has its outcome.
func ended(op *paymentpb.Op) Step {
	return refuse(reject.PaymentState, "operation %s has ended: it is %s", op.Id, stateName(op.State))
}

func stateName(s paymentpb.OpState) string {
	return strings.ToLower(strings.TrimPrefix(s.String(), "OP_"))
}

// repeated answers a command whose operation exists already.
func repeated(p *paymentpb.Payment, kind paymentpb.OpKind, id string, amount int64) (Step, bool) {
	op := find(p, id)
	if op == nil {
		return Step{}, false
	}
	// The amount of a void is our own arithmetic, not part of the request.
	if op.Kind != kind || kind != paymentpb.OpKind_VOID && op.Amount != amount {
		return refuse(reject.PaymentMismatch, "operation %s of payment %s is %s %d, not %s %d",
			id, p.Id, kindName(op.Kind), op.Amount, kindName(kind), amount), true
	}
	return Step{Op: op}, true
}

func checkOp(p *paymentpb.Payment, id string) *reject.Rejection {
	switch {
	case id == "" || id == AuthorizeOp || len(id) > maxIDBytes:
		return rejection(reject.InvalidID, "an operation ID has 1 to %d bytes and is not %q", maxIDBytes, AuthorizeOp)
	case len(p.GetOps()) >= MaxOps:
		return rejection(reject.TooManyObjects, "a payment has at most %d operations", MaxOps)
	}
	return nil
}

func checkAmount(p *paymentpb.Payment, id string, amount int64) *reject.Rejection {
	if amount <= 0 || amount > MaxAmount {
		return rejection(reject.InvalidAmount, "%d: an amount is 1 to %d", amount, int64(MaxAmount))
	}
	return checkOp(p, id)
}

func refuse(code, format string, args ...any) Step {
	return Step{Rejection: rejection(code, format, args...)}
}

func rejection(code, format string, args ...any) *reject.Rejection {
	return &reject.Rejection{Code: code, Detail: fmt.Sprintf(format, args...)}
}

func add(p *paymentpb.Payment, kind paymentpb.OpKind, id string, amount, now int64) *paymentpb.Op {
	op := &paymentpb.Op{Id: id, Kind: kind, Amount: amount, CreatedAt: now}
	p.Ops = append(p.Ops, op)
	return op
}

func find(p *paymentpb.Payment, id string) *paymentpb.Op {
	for _, op := range p.GetOps() {
		if op.Id == id {
			return op
		}
	}
	return nil
}

// Find returns the operation of the given ID, nil when there is none.
func Find(p *paymentpb.Payment, op string) *paymentpb.Op { return find(p, op) }

// underWay returns the operation that is SENT or UNKNOWN, nil when there is none.
func underWay(p *paymentpb.Payment) *paymentpb.Op {
	for _, op := range p.Ops {
		if op.State == paymentpb.OpState_OP_SENT || op.State == paymentpb.OpState_OP_UNKNOWN {
			return op
		}
	}
	return nil
}

func isFinished(op *paymentpb.Op) bool { return op.State >= paymentpb.OpState_OP_SUCCEEDED }

// unfinished sums the operations of a kind that may still succeed.
func unfinished(p *paymentpb.Payment, kind paymentpb.OpKind) (sum int64) {
	for _, op := range p.Ops {
		if op.Kind == kind && !isFinished(op) {
			sum += op.Amount
		}
	}
	return sum
}

// IsStuck reports whether an operation of p needs a person.
func IsStuck(p *paymentpb.Payment) bool {
	for _, op := range p.GetOps() {
		if op.Stuck {
			return true
		}
	}
	return false
}

// Outcome is the answer to a command about op: PENDING while it runs.
func Outcome(op *paymentpb.Op) *paymentpb.Outcome {
	switch op.State {
	case paymentpb.OpState_OP_SUCCEEDED:
		return &paymentpb.Outcome{
			Status: paymentpb.OutcomeStatus_SUCCEEDED, Amount: op.Amount, Code: op.Code,
			ProviderReference: op.ProviderReference, Attempts: op.Attempts,
		}
	case paymentpb.OpState_OP_DECLINED:
		return &paymentpb.Outcome{Status: paymentpb.OutcomeStatus_DECLINED, Code: op.Code, Attempts: op.Attempts}
	case paymentpb.OpState_OP_CANCELED:
		return &paymentpb.Outcome{Status: paymentpb.OutcomeStatus_CANCELED, Code: op.Code, Attempts: op.Attempts}
	}
	if op.Stuck {
		return &paymentpb.Outcome{Stuck: true, Cause: op.Code, Attempts: op.Attempts}
	}
	return &paymentpb.Outcome{}
}

// stored closes a change: it checks the promises before anybody can see a state that breaks them.
func stored(p *paymentpb.Payment, from string, on Input, now int64) {
	p.UpdatedAt = now
	p.Revision++
	moved(p.Id, from, on, Status(p))
	if err := Check(p); err != nil {
		invariant.Check(false, "payment %s: %v", p.Id, err)
	}
}

// Check returns an error that names the first invariant which p breaks.
func Check(p *paymentpb.Payment) error {
	if p.Requested < p.Authorized || p.Authorized < p.Captured || p.Captured < p.Refunded || p.Refunded < 0 {
		return fmt.Errorf("want requested %d >= authorized %d >= captured %d >= refunded %d >= 0",
			p.Requested, p.Authorized, p.Captured, p.Refunded)
	}
	if p.Voided != 0 && p.Voided != p.Authorized-p.Captured {
		return fmt.Errorf("voided %d is neither 0 nor authorized %d - captured %d", p.Voided, p.Authorized, p.Captured)
	}
	var sums [5]int64
	busy := 0
	for _, op := range p.Ops {
		switch op.State {
		case paymentpb.OpState_OP_SENT, paymentpb.OpState_OP_UNKNOWN:
			busy++
		case paymentpb.OpState_OP_SUCCEEDED:
			sums[op.Kind] += op.Amount
		case paymentpb.OpState_OP_PENDING:
			if busy == 0 {
				return fmt.Errorf("operation %s waits for nothing", op.Id)
			}
		}
	}
	if busy > 1 {
		return fmt.Errorf("%d operations are under way, at most 1 may be", busy)
	}
	if sums != [5]int64{0, p.Authorized, p.Captured, p.Voided, p.Refunded} {
		// Copies, so that those compared above stay on the stack: this is checked at every change.
		found, said := slices.Clone(sums[1:]), []int64{p.Authorized, p.Captured, p.Voided, p.Refunded}
		return fmt.Errorf("operations sum up to %v, the payment says %v", found, said)
	}
	return nil
}
