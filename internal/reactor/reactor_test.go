package reactor

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"hanse/api/inventorypb"
	"hanse/api/orderpb"
	"hanse/api/paymentpb"
	"hanse/internal/clock"
	"hanse/internal/hlc"
	"hanse/internal/reject"
	"hanse/internal/shard"
)

var (
	source = shard.NewID(shard.Order, 0)
	stock  = shard.NewID(shard.Inventory, 1)
)

func message(seq uint64, to shard.ID, key string) *shard.Message {
	return &shard.Message{Seq: seq, To: to, Key: key, Created: hlc.FromMillis(0)}
}

// at is a look at a clock that is right.
func at(ms int64) clock.Reading { return clock.Reading{Mono: ms, Wall: ms} }

func newReactor() *Reactor {
	return New(DefaultConfig(), func() uint64 { return 50 })
}

func sentSeqs(a Actions) []uint64 {
	var seqs []uint64
	for _, d := range a.Deliveries {
		seqs = append(seqs, d.Message.Seq)
	}
	return seqs
}

func TestMessagesOfOneLaneGoOneByOne(t *testing.T) {
	r := newReactor()
	r.Lead(source, 1, []*shard.Message{message(1, stock, "a"), message(2, stock, "a"), message(3, stock, "b")}, at(0))
	if got, want := sentSeqs(r.Take()), []uint64{1, 3}; !slices.Equal(got, want) {
		t.Fatalf("sent %v at first, want %v: 2 waits for 1", got, want)
	}
	r.Answered(source, 1, 1, shard.Result{}, nil, at(0))
	a := r.Take()
	if len(a.Proposals) != 1 || a.Proposals[0].Command.Kind != shard.KindReply || len(a.Deliveries) != 0 {
		t.Fatalf("after the answer %+v, want the reply proposed and 2 still waiting", a)
	}
	r.Applied(source, nil, []uint64{1}, at(0))
	if got, want := sentSeqs(r.Take()), []uint64{2}; !slices.Equal(got, want) {
		t.Fatalf("sent %v after 1 finished, want %v", got, want)
	}
}

func TestFailureIsRetriedThenReportedStuck(t *testing.T) {
	cfg := DefaultConfig()
	r := newReactor()
	r.Lead(source, 1, []*shard.Message{message(1, stock, "a")}, at(0))
	r.Take()
	now := int64(0)
	for attempt := 1; attempt < cfg.StuckAfterAttempts; attempt++ {
		r.Answered(source, 1, 1, shard.Result{}, errors.New("no leader"), at(now))
		if a := r.Take(); len(a.Proposals)+len(a.Deliveries) != 0 {
			t.Fatalf("attempt %d: %+v at once, want a pause", attempt, a)
		}
		now = r.NextDue()
		r.Tick(at(now))
		if got := sentSeqs(r.Take()); len(got) != 1 {
			t.Fatalf("attempt %d: sent %v when due, want a retry", attempt, got)
		}
	}
	r.Answered(source, 1, 1, shard.Result{}, errors.New("no leader"), at(now))
	a := r.Take()
	if len(a.Proposals) != 1 || a.Proposals[0].Command.Kind != shard.KindStuck {
		t.Fatalf("after %d attempts %+v, want it reported as stuck", cfg.StuckAfterAttempts, a)
	}
	s, err := shard.DecodeStuck(a.Proposals[0].Command.Payload)
	if err != nil || s.Cause != "no leader" || s.Seq != 1 {
		t.Errorf("report %+v, %v", s, err)
	}
	if got, want := r.NextDue()-now, cfg.StuckRetry.Milliseconds(); got != want {
		t.Errorf("slow retry after %d ms, want %d", got, want)
	}
	r.Tick(at(r.NextDue()))
	r.Take()
	r.Answered(source, 1, 1, shard.Result{}, errors.New("no leader"), at(now))
	if a := r.Take(); len(a.Proposals) != 0 {
		t.Errorf("reported twice: %+v", a)
	}
}

// A reserve that waits for what is held tentatively is sent again soon, as often as it takes, and nobody is told that it is stuck. When its order
// is given up, what releases it does not wait behind it.
func TestReservesThatWaitForWhatIsTentative(t *testing.T) {
	reserve := &inventorypb.Command{Body: &inventorypb.Command_Reserve{Reserve: new(inventorypb.Reserve)}}
	release := &inventorypb.Command{Body: &inventorypb.Command_Release{Release: new(inventorypb.Release)}}
	undecided := shard.Result{Pending: "a"}
	begin := func() *Reactor {
		r := newReactor()
		r.Lead(source, 1, nil, at(0))
		r.Applied(source, []*shard.Message{carrying(t, 1, stock, "a", reserve)}, nil, at(0))
		r.Take()
		return r
	}
	givenUp := func(r *Reactor, now int64) {
		t.Helper()
		a := r.Take()
		if len(a.Deliveries) != 0 || len(a.Proposals) != 1 {
			t.Fatalf("given up: %+v, want the reserve answered", a)
		}
		seq, result, err := shard.DecodeReply(a.Proposals[0].Command.Payload)
		if err != nil || seq != 1 || result.Code != reject.HoldCanceled {
			t.Errorf("reply to %d is %+v, %v; want %s", seq, result, err, reject.HoldCanceled)
		}
		r.Applied(source, nil, []uint64{1}, at(now))
		if got, want := sentSeqs(r.Take()), []uint64{2}; !slices.Equal(got, want) {
			t.Errorf("then %v leave, want %v", got, want)
		}
	}

	r, now := begin(), int64(0)
	for range 3 * DefaultConfig().StuckAfterAttempts {
		r.Answered(source, 1, 1, undecided, nil, at(now))
		if a := r.Take(); len(a.Deliveries)+len(a.Proposals) != 0 || r.NextDue()-now > undecidedPause {
			t.Fatalf("at %d: %+v, and the next try at %d; want it within %d ms and nothing else", now, a, r.NextDue(), undecidedPause)
		}
		now = r.NextDue()
		r.Tick(at(now))
		if got := sentSeqs(r.Take()); len(got) != 1 {
			t.Fatalf("at %d %v are sent, want the reserve", now, got)
		}
	}
	r.Answered(source, 1, 1, undecided, nil, at(now))
	r.Applied(source, []*shard.Message{carrying(t, 2, stock, "a", release)}, nil, at(now))
	givenUp(r, now)

	r = begin() // it is on its way when the release comes
	r.Applied(source, []*shard.Message{carrying(t, 2, stock, "a", release)}, nil, at(0))
	r.Answered(source, 1, 1, undecided, nil, at(0))
	givenUp(r, 0)
}

// The inventory hears that an order is on record, whose stock was held tentatively, at the latest when others have waited for half a second.
func TestWhatIsHeldEarlyIsSettled(t *testing.T) {
	reserve := &inventorypb.Command{Body: &inventorypb.Command_Reserve{Reserve: new(inventorypb.Reserve)}}
	allocate := &inventorypb.Command{Body: &inventorypb.Command_Allocate{Allocate: new(inventorypb.Allocate)}}
	for _, test := range []struct {
		name string
		then func(r *Reactor)
		want []uint64
	}{
		{"nothing follows", func(*Reactor) {}, []uint64{1}},
		{"it is allocated", func(r *Reactor) {
			r.Applied(source, []*shard.Message{carrying(t, 2, stock, "a", allocate)}, []uint64{1}, at(100))
		}, nil},
		{"another leads", func(r *Reactor) { r.Resign(source) }, nil},
		{"this one leads again", func(r *Reactor) { r.Lead(source, 2, nil, at(100)) }, nil},
	} {
		r := newReactor()
		r.Lead(source, 1, nil, at(0))
		r.Early(source, stock, "a", at(0))
		r.Applied(source, []*shard.Message{carrying(t, 1, stock, "a", reserve)}, nil, at(0))
		r.EarlyAnswered(source, stock, "a", true, at(0))
		test.then(r)
		r.Take()
		if due := r.NextDue(); due != settleAfter {
			t.Errorf("%s: the next tick is wanted at %d, want %d", test.name, due, settleAfter)
		}
		r.Tick(at(settleAfter - 1))
		if got := sentSeqs(r.Take()); len(got) != 0 {
			t.Errorf("%s: before its time %v are sent", test.name, got)
		}
		r.Tick(at(settleAfter))
		if got := sentSeqs(r.Take()); !slices.Equal(got, test.want) {
			t.Errorf("%s: %v are sent, want %v", test.name, got, test.want)
		}
		r.Answered(source, 1, 1, shard.Result{}, nil, at(settleAfter))
		if a := r.Take(); len(a.Proposals) != 0 && test.name != "nothing follows" {
			t.Errorf("%s: %+v", test.name, a)
		}
		r.Tick(at(10 * settleAfter))
		if got := sentSeqs(r.Take()); len(got) != 0 {
			t.Errorf("%s: %v are sent once more", test.name, got)
		}
	}
}

// Nobody is told of a question that is not answered; it is asked again and again.
func TestQuestionsAreNeverStuck(t *testing.T) {
	r, now := New(DefaultConfig(), func() uint64 { return 1 << 62 }), int64(0)
	r.Lead(stock, 1, []*shard.Message{message(1, source, "a")}, at(0))
	for n := range 3 * DefaultConfig().StuckAfterAttempts {
		r.Tick(at(now))
		if a := r.Take(); len(a.Deliveries) != 1 || len(a.Proposals) != 0 {
			t.Fatalf("try %d: %+v, want it sent and nothing proposed", n+1, a)
		}
		r.Answered(stock, 1, 1, shard.Result{}, errors.New("no leader"), at(now))
		if pause := r.NextDue() - now; pause > DefaultConfig().MaxBackoff.Milliseconds()+1 {
			t.Fatalf("after try %d it waits for %d ms, want at most %v", n+1, pause, DefaultConfig().MaxBackoff)
		}
		now = r.NextDue()
	}
}

// What has failed for so long that it is tried every five minutes leaves soon when its destination answers somebody again. A message that its
// destination does not take, while it takes others, stays with its pauses.
func TestWhoIsBackGetsWhatHasFailed(t *testing.T) {
	down := errors.New("no leader")
	begin := func() (*Reactor, int64) { // messages 1 and 2 of different objects are stuck
		r, now := newReactor(), int64(60_000)
		r.Lead(source, 1, []*shard.Message{message(1, stock, "a"), message(2, stock, "b")}, at(now))
		for range DefaultConfig().StuckAfterAttempts {
			r.Tick(at(now))
			for _, seq := range sentSeqs(r.Take()) {
				r.Answered(source, 1, seq, shard.Result{}, down, at(now))
			}
			now = r.NextDue()
		}
		if wait := DefaultConfig().StuckRetry.Milliseconds(); now < wait {
			t.Fatalf("the next try is at %d, want a pause of %d ms before it", now, wait)
		}
		return r, now - 200_000
	}
	emit := func(r *Reactor, seq uint64, to shard.ID, now int64) {
		r.Applied(source, []*shard.Message{message(seq, to, fmt.Sprint(seq))}, nil, at(now))
		r.Take()
	}

	r, now := begin()
	emit(r, 3, stock, now)
	r.Answered(source, 1, 3, shard.Result{}, nil, at(now))
	r.Take()
	r.Tick(at(now + silence))
	if got, want := sentSeqs(r.Take()), []uint64{1, 2}; !slices.Equal(got, want) {
		t.Errorf("a second after the answer %v leave, want %v", got, want)
	}
	// They fail all the same, and others do not.
	for _, seq := range []uint64{1, 2} {
		r.Answered(source, 1, seq, shard.Result{}, down, at(now+silence/2))
	}
	emit(r, 4, stock, now+silence/2)
	r.Answered(source, 1, 4, shard.Result{}, nil, at(now+silence/2))
	r.Take()
	r.Tick(at(now + 60_000))
	if got := sentSeqs(r.Take()); len(got) != 0 {
		t.Errorf("a destination that takes others' messages is sent %v again at once", got)
	}

	r, now = begin()
	elsewhere := shard.NewID(shard.Inventory, 0)
	emit(r, 3, elsewhere, now)
	r.Answered(source, 1, 3, shard.Result{}, nil, at(now))
	r.Tick(at(now + silence))
	if got := sentSeqs(r.Take()); len(got) != 0 {
		t.Errorf("when another shard answers %v leave, want none", got)
	}

	r, now = begin()
	emit(r, 3, stock, now)
	r.Answered(source, 1, 3, shard.Result{Pending: "x"}, nil, at(now))
	r.Tick(at(now + silence))
	if got := sentSeqs(r.Take()); len(got) != 3 { // and the one that is pending
		t.Errorf("after an answer that is pending %v leave, want all", got)
	}
}

// After an outage of the provider an order stayed stuck for up to five minutes after its payment was authorized. A receiver that has not finished is
// asked again sooner, unless many wait: they share a pace.
func TestWhoHasNotFinishedIsAskedSoonUnlessManyAre(t *testing.T) {
	cfg := DefaultConfig()
	for _, c := range []struct {
		orders int
		want   time.Duration
	}{{1, cfg.MaxBackoff}, {3000, cfg.MaxBackoff}, {6000, time.Minute}, {100_000, cfg.StuckRetry}} {
		cfg.MaxInFlight = c.orders
		r, now := New(cfg, func() uint64 { return 0 }), int64(0)
		payments := shard.NewID(shard.Payment, 0)
		command := &paymentpb.Command{Body: &paymentpb.Command_Capture{Capture: &paymentpb.Capture{PaymentId: "pay_1", Op: "ful_1"}}}
		payload, err := command.MarshalVT()
		if err != nil {
			t.Fatal(err)
		}
		messages := make([]*shard.Message, c.orders)
		for i := range messages {
			messages[i] = message(uint64(i)+1, payments, fmt.Sprint(i))
			messages[i].Payload = payload
		}
		r.Lead(source, 1, messages, at(now))
		now = cfg.StuckAfter.Milliseconds()
		for range 2 { // when all are stuck they know how many they are
			for _, d := range r.Take().Deliveries {
				r.Answered(source, 1, d.Message.Seq, shard.Result{Pending: "x"}, nil, at(now))
			}
			for _, p := range r.Take().Proposals {
				s, err := shard.DecodeStuck(p.Command.Payload)
				if want := "pay_1 has not finished ful_1: hanse payment get pay_1 says why"; err != nil || s.Cause != want {
					t.Fatalf("the cause is %+v, %v; want %q", s, err, want)
				}
			}
			now += cfg.StuckRetry.Milliseconds()
			r.Tick(at(now))
		}
		last := int64(0)
		for _, d := range r.Take().Deliveries {
			r.Answered(source, 1, d.Message.Seq, shard.Result{Pending: "x"}, nil, at(now))
			last = max(last, r.led[source].pending[d.Message.Seq].due)
		}
		if got := time.Duration(last-now) * time.Millisecond; got != c.want {
			t.Errorf("%d orders: the last asks again after %v, want %v", c.orders, got, c.want)
		}
	}
}

func TestPendingResultIsAskedAgain(t *testing.T) {
	r := newReactor()
	r.Lead(source, 1, []*shard.Message{message(1, stock, "a")}, at(0))
	r.Take()
	r.Answered(source, 1, 1, shard.Result{Pending: "pay_1.auth"}, nil, at(0))
	if a := r.Take(); len(a.Proposals) != 0 {
		t.Fatalf("a pending result was taken as an answer: %+v", a)
	}
	r.Tick(at(r.NextDue()))
	if got := sentSeqs(r.Take()); len(got) != 1 {
		t.Errorf("sent %v, want it asked again", got)
	}
}

func TestAnswersOfAnOldTermAreIgnored(t *testing.T) {
	r := newReactor()
	r.Lead(source, 1, []*shard.Message{message(1, stock, "a")}, at(0))
	r.Take()
	r.Lead(source, 2, []*shard.Message{message(1, stock, "a")}, at(0))
	if got := sentSeqs(r.Take()); len(got) != 1 {
		t.Fatalf("a new term sent %v, want the outbox again", got)
	}
	r.Answered(source, 1, 1, shard.Result{}, nil, at(0))
	if a := r.Take(); len(a.Proposals) != 0 {
		t.Errorf("an answer to term 1 was proposed in term 2: %+v", a)
	}
	r.Resign(source)
	r.Answered(source, 2, 1, shard.Result{}, nil, at(0))
	if a := r.Take(); len(a.Proposals) != 0 {
		t.Errorf("an answer was proposed after resigning: %+v", a)
	}
}

// inventory encodes a command to the stock service.
func inventory(t *testing.T, c *inventorypb.Command) []byte {
	t.Helper()
	payload, err := c.MarshalVT()
	if err != nil {
		t.Fatal(err)
	}
	return payload
}

func TestAnswersThatNothingWaitsForAreLazy(t *testing.T) {
	reserve := inventory(t, &inventorypb.Command{Body: &inventorypb.Command_Reserve{Reserve: new(inventorypb.Reserve)}})
	allocate := inventory(t, &inventorypb.Command{Body: &inventorypb.Command_Allocate{Allocate: new(inventorypb.Allocate)}})
	other := shard.NewID(shard.Inventory, 2)
	about := func(m *shard.Message, payload []byte) *shard.Message { m.Payload = payload; return m }
	r := newReactor()
	r.Lead(source, 1, []*shard.Message{
		about(message(1, stock, "a"), reserve), about(message(2, other, "a"), reserve), about(message(3, stock, "b"), reserve),
		about(message(4, stock, "c"), allocate), about(message(5, other, "c"), allocate), message(6, shard.NewID(shard.Payment, 0), "c"),
	}, at(0))
	answered := func(seq uint64, err error) {
		r.Answered(source, 1, seq, shard.Result{}, err, at(0))
	}
	r.Take()
	for _, c := range []struct {
		seq  uint64
		lazy bool
		why  string
	}{
		{1, true, "the order waits for its other reserve"},
		{3, false, "an order in one shard waits for nothing else"},
		{2, false, "it is the last that the order waits for"},
		{4, true, "an allocation changes nothing"},
		{6, false, "a payment does not wait for an allocation"},
		{5, true, "an allocation changes nothing, also the last"},
	} {
		answered(c.seq, nil)
		if a := r.Take(); len(a.Proposals) != 1 || a.Proposals[0].Lazy != c.lazy {
			t.Errorf("the answer to %d: %+v, want it proposed, lazy %v: %s", c.seq, a.Proposals, c.lazy, c.why)
		}
	}

	// What has failed, or was ended by another's answer, is not awaited.
	r.Lead(source, 2, []*shard.Message{
		about(message(7, stock, "d"), reserve), about(message(8, other, "d"), reserve),
		about(message(9, stock, "e"), reserve), about(message(10, other, "e"), reserve),
	}, at(0))
	r.Take()
	r.Answered(source, 2, 7, shard.Result{}, errors.New("no answer"), at(0))
	r.Answered(source, 2, 8, shard.Result{}, nil, at(0))
	r.Applied(source, nil, []uint64{9}, at(0))
	r.Answered(source, 2, 10, shard.Result{}, nil, at(0))
	if a := r.Take(); len(a.Proposals) != 2 || a.Proposals[0].Lazy || a.Proposals[1].Lazy {
		t.Errorf("%+v, want two answers that are not lazy", a.Proposals)
	}
	if n := len(r.led[source].awaited); n != 0 {
		t.Errorf("%d objects are awaited when nothing is in flight", n)
	}
}

func TestLazyCommands(t *testing.T) {
	fulfill := inventory(t, &inventorypb.Command{Body: &inventorypb.Command_Fulfill{Fulfill: new(inventorypb.Fulfill)}})
	release := inventory(t, &inventorypb.Command{Body: &inventorypb.Command_Release{Release: new(inventorypb.Release)}})
	for _, c := range []struct {
		to   shard.ID
		cmd  shard.Command
		want bool
	}{
		{stock, shard.Command{Kind: shard.KindLogic, Payload: fulfill}, true},
		{stock, shard.Command{Kind: shard.KindLogic, Payload: release}, false},
		{stock, shard.Command{Kind: shard.KindReply, Payload: fulfill}, false},
		{stock, shard.Command{Kind: shard.KindLogic}, false},
		{source, shard.Command{Kind: shard.KindLogic, Payload: fulfill}, false},
	} {
		if got := Lazy(c.to, &c.cmd); got != c.want {
			t.Errorf("kind %d, payload %x at %s: lazy %v, want %v", c.cmd.Kind, c.cmd.Payload, c.to, got, c.want)
		}
	}
}

func TestFailedProposalIsRepeated(t *testing.T) {
	r := newReactor()
	r.Lead(source, 1, []*shard.Message{message(1, stock, "a")}, at(0))
	r.Take()
	r.Answered(source, 1, 1, shard.Result{Code: "out_of_stock"}, nil, at(0))
	r.Take()
	r.ProposalFailed(source, 1, 1, at(0))
	r.Tick(at(time.Second.Milliseconds()))
	if a := r.Take(); len(a.Proposals) != 1 || len(a.Deliveries) != 0 {
		t.Errorf("after a failed proposal %+v, want the same reply proposed again", a)
	}
}

func TestDeliveriesInFlightAreBounded(t *testing.T) {
	cfg := DefaultConfig()
	cfg.MaxInFlight = 2
	r := New(cfg, func() uint64 { return 0 })
	r.Lead(source, 1, []*shard.Message{message(1, stock, "a"), message(2, stock, "b"), message(3, stock, "c")}, at(0))
	if got, want := sentSeqs(r.Take()), []uint64{1, 2}; !slices.Equal(got, want) {
		t.Fatalf("sent %v, want %v", got, want)
	}
	r.Answered(source, 1, 2, shard.Result{}, nil, at(0))
	if got, want := sentSeqs(r.Take()), []uint64{3}; !slices.Equal(got, want) {
		t.Errorf("sent %v after an answer, want %v", got, want)
	}
}

func TestNotBeforeDelaysTheFirstDelivery(t *testing.T) {
	r := newReactor()
	m := message(1, shard.PSP, "pay")
	m.NotBefore = hlc.FromMillis(500)
	r.Lead(source, 1, []*shard.Message{m}, at(100))
	if got := sentSeqs(r.Take()); len(got) != 0 {
		t.Fatalf("sent %v before its time", got)
	}
	r.Tick(at(500))
	if got := sentSeqs(r.Take()); len(got) != 1 {
		t.Errorf("sent %v at its time, want it", got)
	}
}

func TestAuthorizationWaitsForTheReserves(t *testing.T) {
	reserve := inventory(t, &inventorypb.Command{Body: &inventorypb.Command_Reserve{Reserve: new(inventorypb.Reserve)}})
	authorize, err := (&paymentpb.Command{Body: &paymentpb.Command_Authorize{Authorize: new(paymentpb.Authorize)}}).MarshalVT()
	if err != nil {
		t.Fatal(err)
	}
	other, payments := shard.NewID(shard.Inventory, 2), shard.NewID(shard.Payment, 0)
	about := func(seq uint64, to shard.ID, key string, payload []byte) *shard.Message {
		m := message(seq, to, key)
		m.Payload = payload
		return m
	}
	r := newReactor()
	wantSent := func(when string, want ...uint64) Actions {
		t.Helper()
		a := r.Take()
		if got := sentSeqs(a); !slices.Equal(got, want) {
			t.Fatalf("%s: sent %v, want %v", when, got, want)
		}
		return a
	}
	outbox := []*shard.Message{
		about(1, stock, "a", reserve), about(2, other, "a", reserve), about(3, payments, "a", authorize),
		about(4, payments, "b", authorize), about(5, stock, "c", reserve), about(6, payments, "c", authorize), about(7, payments, "c", nil),
	}
	r.Lead(source, 1, outbox, at(0))
	wantSent("at first", 1, 2, 4, 5)
	r.Answered(source, 1, 1, shard.Result{}, nil, at(0))
	wantSent("one of two is held")
	r.Answered(source, 1, 2, shard.Result{}, errors.New("no answer"), at(0))
	wantSent("the other has no answer")
	r.Tick(at(r.NextDue()))
	wantSent("it is asked again", 2)
	r.Answered(source, 1, 2, shard.Result{}, nil, at(0))
	if a := wantSent("both are held", 3); len(a.Proposals) != 1 || !a.Proposals[0].Lazy {
		t.Errorf("%+v, want the answer proposed, lazily: the authorization has left", a.Proposals)
	}

	// A refusal keeps it back, and ends it in the entry that takes the refusal: only what comes after it leaves.
	r.Answered(source, 1, 5, shard.Result{Code: "out_of_stock"}, nil, at(0))
	if a := wantSent("c is refused"); len(a.Proposals) != 1 || a.Proposals[0].Lazy {
		t.Errorf("%+v, want the refusal proposed at once", a.Proposals)
	}
	r.Applied(source, []*shard.Message{about(8, stock, "c", nil)}, []uint64{5, 6}, at(0))
	wantSent("the refusal is applied", 8, 7)

	// A new leader begins with what is left, and an operator may end a reserve.
	r.Lead(source, 2, []*shard.Message{outbox[1], outbox[2]}, at(0))
	wantSent("led anew", 2)
	r.Applied(source, nil, []uint64{2}, at(0))
	wantSent("the last reserve is over", 3)
	if n := len(r.led[source].gates); n != 0 {
		t.Errorf("%d gates are kept when no reserve is pending", n)
	}
}

// A step that an operator had sent again has a higher number than the authorization that waits for it, and a new leader reads them by number.
func TestAuthorizationWaitsForWhatWasSentAgain(t *testing.T) {
	payments := shard.NewID(shard.Payment, 0)
	reserve := carrying(t, 7, stock, "a", &inventorypb.Command{Body: &inventorypb.Command_Reserve{Reserve: new(inventorypb.Reserve)}})
	authorize := carrying(t, 3, payments, "a", &paymentpb.Command{Body: &paymentpb.Command_Authorize{Authorize: new(paymentpb.Authorize)}})
	r := newReactor()
	r.Lead(source, 1, []*shard.Message{authorize, reserve}, at(0))
	if got := told(r.Take()); got != "sends [7]" {
		t.Errorf("a new leader %s, want the reserve alone", got)
	}
	r.Lead(source, 2, nil, at(0))
	r.Applied(source, []*shard.Message{authorize, reserve}, nil, at(0))
	if got := told(r.Take()); got != "sends [7]" {
		t.Errorf("with both in one entry it %s, want the reserve alone", got)
	}
}

func TestAuthorizationWaitsForTheClaim(t *testing.T) {
	payments, home := shard.NewID(shard.Payment, 0), shard.NewID(shard.Order, 1)
	claim := carrying(t, 1, home, "a", &orderpb.Command{Body: &orderpb.Command_ClaimKey{ClaimKey: &orderpb.ClaimKey{Key: "k"}}})
	reserve := carrying(t, 2, stock, "a", &inventorypb.Command{Body: &inventorypb.Command_Reserve{Reserve: new(inventorypb.Reserve)}})
	authorize := carrying(t, 3, payments, "a", &paymentpb.Command{Body: &paymentpb.Command_Authorize{Authorize: new(paymentpb.Authorize)}})
	placed := []*shard.Message{claim, reserve, authorize}
	refused := shard.Result{Code: shard.CodeKeyReused}
	place := func(r *Reactor) { r.Applied(source, placed, nil, at(1)) }
	answer := func(seq uint64, result shard.Result, err error) func(*Reactor) {
		return func(r *Reactor) { r.Answered(source, 1, seq, result, err, at(1)) }
	}
	early := func(r *Reactor) { r.Early(source, stock, "a", at(0)); r.Early(source, home, "a", at(0)) }
	earlyAnswer := func(to shard.ID, well bool) func(*Reactor) {
		return func(r *Reactor) { r.EarlyAnswered(source, to, "a", well, at(1)) }
	}
	for _, test := range []struct {
		name  string
		steps []func(*Reactor)
		want  []string // after each step
	}{
		{"claimed last", []func(*Reactor){place, answer(2, shard.Result{}, nil), answer(1, shard.Result{}, nil)},
			[]string{"sends [1 2]", "proposes 1, lazy", "sends [3], proposes 1, lazy"}},
		{"claimed first", []func(*Reactor){place, answer(1, shard.Result{}, nil), answer(2, shard.Result{}, nil)},
			[]string{"sends [1 2]", "proposes 1, lazy", "sends [3], proposes 1, lazy"}},
		{"refused", []func(*Reactor){place, answer(2, shard.Result{}, nil), answer(1, refused, nil), func(r *Reactor) { r.Applied(source, nil, []uint64{1, 3}, at(1)) }},
			[]string{"sends [1 2]", "proposes 1, lazy", "proposes 1", ""}},
		{"no answer", []func(*Reactor){place, answer(2, shard.Result{}, nil), answer(1, shard.Result{}, errors.New("gone")), func(r *Reactor) { r.Tick(at(r.NextDue())) }},
			[]string{"sends [1 2]", "proposes 1, lazy", "", "sends [1]"}},
		{"claimed early", []func(*Reactor){early, earlyAnswer(home, true), place, earlyAnswer(stock, true)}, []string{"", "", "proposes 1, lazy", "sends [3], proposes 1, lazy"}},
		{"refused early", []func(*Reactor){early, earlyAnswer(home, false), earlyAnswer(stock, true), place, answer(1, refused, nil)},
			[]string{"", "", "", "sends [1], proposes 1, lazy", "proposes 1"}},
		{"refused early, while it waits", []func(*Reactor){early, place, earlyAnswer(stock, true), earlyAnswer(home, false)},
			[]string{"", "", "proposes 1, lazy", "sends [1]"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := newReactor()
			r.Lead(source, 1, nil, at(0))
			for i, step := range test.steps {
				step(r)
				if got := told(r.Take()); got != test.want[i] {
					t.Fatalf("step %d: %q, want %q", i, got, test.want[i])
				}
			}
		})
	}
	// Nobody has to tell whoever keeps the keys that the order is on record.
	r := newReactor()
	r.Lead(source, 1, nil, at(0))
	early(r)
	earlyAnswer(home, true)(r)
	place(r)
	r.Take()
	if r.Tick(at(1 + settleAfter)); len(r.Take().Deliveries) != 0 {
		t.Error("a claim that was answered early leaves once more")
	}
}

// carrying makes a message with a command.
func carrying(t *testing.T, seq uint64, to shard.ID, key string, c interface{ MarshalVT() ([]byte, error) }) *shard.Message {
	t.Helper()
	m := message(seq, to, key)
	var err error
	if m.Payload, err = c.MarshalVT(); err != nil {
		t.Fatal(err)
	}
	return m
}

// A message that is sent again, and a void, say what is known of the attempts before.
func TestPayloadTellsWhatWasSentBefore(t *testing.T) {
	payments := shard.NewID(shard.Payment, 0)
	asked := &paymentpb.Authorize{PaymentId: "pay", Amount: 5, Currency: "EUR", CallFirst: true}
	reserve := carrying(t, 1, stock, "a", &inventorypb.Command{Body: &inventorypb.Command_Reserve{Reserve: new(inventorypb.Reserve)}})
	authorize := carrying(t, 2, payments, "a", &paymentpb.Command{Body: &paymentpb.Command_Authorize{Authorize: asked}})
	void := carrying(t, 3, payments, "a", &paymentpb.Command{Body: &paymentpb.Command_Void{Void: &paymentpb.Void{PaymentId: "pay", Authorize: asked}}})
	next := func(r *Reactor) *paymentpb.Command {
		t.Helper()
		a := r.Take()
		if len(a.Deliveries) != 1 || a.Deliveries[0].Message.To != payments {
			t.Fatalf("%d deliveries, want one to the payments: %+v", len(a.Deliveries), a.Deliveries)
		}
		c := new(paymentpb.Command)
		if err := c.UnmarshalVT(a.Deliveries[0].Payload()); err != nil {
			t.Fatal(err)
		}
		return c
	}
	held := func(r *Reactor) *paymentpb.Command {
		t.Helper()
		r.Answered(source, 1, 1, shard.Result{}, nil, at(0))
		return next(r)
	}
	canceled := func(r *Reactor, want bool) {
		t.Helper()
		r.Applied(source, []*shard.Message{void}, []uint64{2}, at(0))
		for range 2 { // what is known of it is known when it is sent again too
			if doubt := next(r).GetVoid().GetAuthorize() != nil; doubt != want {
				t.Errorf("the void asks the provider: %v, want %v", doubt, want)
			}
			r.Answered(source, 1, 3, shard.Result{}, errors.New("no leader"), at(r.NextDue()))
			r.Tick(at(r.NextDue()))
		}
	}
	placed := func(inherited bool) *Reactor {
		r := newReactor()
		outbox := []*shard.Message{reserve, authorize}
		if inherited {
			r.Lead(source, 1, outbox, at(0))
		} else {
			r.Lead(source, 1, nil, at(0))
			r.Applied(source, outbox, nil, at(0))
		}
		r.Take()
		return r
	}

	r := placed(false)
	if c := held(r); !c.GetAuthorize().GetCallFirst() {
		t.Errorf("at first %v, want the provider called first", c)
	}
	r.Answered(source, 1, 2, shard.Result{}, errors.New("no leader"), at(0))
	r.Tick(at(r.NextDue()))
	if c := next(r); c.GetAuthorize().GetCallFirst() || c.GetAuthorize().GetAmount() != 5 {
		t.Errorf("again %v, want the same without the call", c)
	}
	canceled(r, true)
	canceled(placed(false), false)
	canceled(placed(true), true)
}

// An order that allocates its stock has been told that it is paid: the payment's own answer need not hurry any more, unless something waits behind it.
func TestAnswersThatAreKnownAreLazy(t *testing.T) {
	payments := shard.NewID(shard.Payment, 0)
	authorize := &paymentpb.Command{Body: &paymentpb.Command_Authorize{Authorize: new(paymentpb.Authorize)}}
	capture := &paymentpb.Command{Body: &paymentpb.Command_Capture{Capture: new(paymentpb.Capture)}}
	allocate := &inventorypb.Command{Body: &inventorypb.Command_Allocate{Allocate: new(inventorypb.Allocate)}}
	r := newReactor()
	r.Lead(source, 1, []*shard.Message{carrying(t, 1, payments, "a", authorize), carrying(t, 2, payments, "b", authorize), carrying(t, 3, payments, "c", authorize)}, at(0))
	r.Applied(source, []*shard.Message{carrying(t, 4, stock, "b", allocate), carrying(t, 5, stock, "c", allocate), carrying(t, 6, payments, "c", capture)}, nil, at(0))
	r.Take()
	for i, lazy := range []bool{false, true, false} {
		seq := uint64(i) + 1
		r.Answered(source, 1, seq, shard.Result{}, nil, at(0))
		if a := r.Take(); len(a.Proposals) != 1 || a.Proposals[0].Lazy != lazy {
			t.Errorf("the answer to %d: %+v, want it proposed, lazy %v", seq, a.Proposals, lazy)
		}
	}
	r.Applied(source, nil, []uint64{1, 2, 3}, at(0))
	if n := len(r.led[source].paying); n != 0 {
		t.Errorf("%d authorizations are remembered when all have ended", n)
	}
}

// What was reserved while an order was being placed is as good as its own reserve, which then does not leave; and what was not, is not.
func TestReservesThatLeftEarly(t *testing.T) {
	payments, other := shard.NewID(shard.Payment, 0), shard.NewID(shard.Inventory, 2)
	reserve := &inventorypb.Command{Body: &inventorypb.Command_Reserve{Reserve: new(inventorypb.Reserve)}}
	authorize := &paymentpb.Command{Body: &paymentpb.Command_Authorize{Authorize: new(paymentpb.Authorize)}}
	placed := []*shard.Message{carrying(t, 1, stock, "a", reserve), carrying(t, 2, other, "a", reserve), carrying(t, 3, payments, "a", authorize)}
	const both, paid = "sends [3], proposes 2, lazy", "sends [3], proposes 1, lazy"
	early := func(r *Reactor) { r.Early(source, stock, "a", at(0)); r.Early(source, other, "a", at(0)) }
	place := func(r *Reactor) { r.Applied(source, placed, nil, at(1)) }
	answer := func(to shard.ID, held bool) func(*Reactor) {
		return func(r *Reactor) { r.EarlyAnswered(source, to, "a", held, at(1)) }
	}
	for _, test := range []struct {
		name  string
		steps []func(*Reactor)
		want  []string // after each step
	}{
		{"held before the order is there", []func(*Reactor){early, answer(stock, true), answer(other, true), place}, []string{"", "", "", both}},
		{"held after", []func(*Reactor){early, place, answer(stock, true), answer(other, true)}, []string{"", "", "proposes 1, lazy", paid}},
		{"one before, one after", []func(*Reactor){early, answer(other, true), place, answer(stock, true)}, []string{"", "", "proposes 1, lazy", paid}},
		{"not held before", []func(*Reactor){early, answer(stock, false), answer(other, true), place}, []string{"", "", "", "sends [1], proposes 1, lazy"}},
		{"not held after", []func(*Reactor){early, place, answer(stock, false), answer(other, true)}, []string{"", "", "sends [1]", "proposes 1, lazy"}},
		{"for one shard only", []func(*Reactor){func(r *Reactor) { r.Early(source, stock, "a", at(0)) }, answer(stock, true), place}, []string{"", "", "sends [2], proposes 1, lazy"}},
		{"by a leader before", []func(*Reactor){early, answer(stock, true), func(r *Reactor) { r.Lead(source, 1, nil, at(0)) }, place, answer(other, true)},
			[]string{"", "", "", "sends [1 2]", ""}},
		{"long ago", []func(*Reactor){early, answer(stock, true), func(r *Reactor) { r.Early(source, stock, "b", at(earlyTime)) }, place}, []string{"", "", "", "sends [1 2]"}},
		{"twice", []func(*Reactor){early, place, early, answer(stock, true), answer(other, true), answer(stock, false)},
			[]string{"", "", "", "proposes 1, lazy", paid, ""}},
		{"canceled while it waits", []func(*Reactor){early, place, func(r *Reactor) { r.Applied(source, nil, []uint64{1, 2, 3}, at(1)) }, answer(stock, true), answer(other, false)},
			[]string{"", "", "", "", ""}},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := newReactor()
			r.Lead(source, 1, nil, at(0))
			for i, step := range test.steps {
				step(r)
				if got := told(r.Take()); got != test.want[i] {
					t.Fatalf("step %d: %q, want %q", i, got, test.want[i])
				}
			}
			if n := len(r.led[source].early); n > 0 && test.name != "long ago" {
				t.Errorf("%d early reserves are remembered when all have been answered", n)
			}
		})
	}
}

// One that waits for room in flight has its answer when there is room.
func TestAReserveThatLeftEarlyWaitsForRoom(t *testing.T) {
	cfg := DefaultConfig()
	cfg.MaxInFlight = 1
	r := New(cfg, func() uint64 { return 50 })
	r.Lead(source, 1, []*shard.Message{message(1, shard.NewID(shard.Inventory, 2), "b")}, at(0))
	r.Early(source, stock, "a", at(0))
	r.EarlyAnswered(source, stock, "a", true, at(0))
	reserve := &inventorypb.Command{Body: &inventorypb.Command_Reserve{Reserve: new(inventorypb.Reserve)}}
	r.Applied(source, []*shard.Message{carrying(t, 2, stock, "a", reserve)}, nil, at(0))
	if got := told(r.Take()); got != "sends [1]" {
		t.Fatalf("at first %q, want one sent and the other waiting", got)
	}
	r.Answered(source, 1, 1, shard.Result{}, nil, at(0))
	if a := r.Take(); len(a.Proposals) != 2 || len(a.Deliveries) != 0 {
		t.Errorf("when there is room %q, want both answers proposed", told(a))
	}
}

// told says what a reactor wants done.
func told(a Actions) string {
	var parts []string
	if seqs := sentSeqs(a); len(seqs) > 0 {
		parts = append(parts, fmt.Sprint("sends ", seqs))
	}
	if n := len(a.Proposals); n > 0 {
		parts = append(parts, fmt.Sprint("proposes ", n))
		if !slices.ContainsFunc(a.Proposals, func(p Proposal) bool { return !p.Lazy }) {
			parts = append(parts, "lazy")
		}
	}
	return strings.Join(parts, ", ")
}
