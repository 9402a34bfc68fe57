package rest

import (
	"bytes"
	"encoding/json"
	"errors"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"hanse/api/orderpb"
	"hanse/internal/reject"
)

// decoder reads a body by hand and returns what it read as the type that describes it, to compare with encoding/json.
type decoder struct {
	name string
	read func([]byte) (any, error)
	// empty says that no body is the same as an empty object.
	empty bool
	// example has every member.
	example string
}

func items(in []*orderpb.Item) []ItemRequest {
	var out []ItemRequest
	for _, i := range in {
		out = append(out, ItemRequest{Line: i.Line, Quantity: i.Quantity})
	}
	return out
}

// unless returns a pointer to false, the only value worth stating of a member that is true unless stated.
func unless(no bool) *bool {
	if !no {
		return nil
	}
	return new(bool)
}

var decoders = []decoder{
	{"place", func(data []byte) (any, error) {
		p, err := decodePlace(data)
		if err != nil {
			return nil, err
		}
		r := OrderRequest{CustomerID: p.CustomerId, Currency: p.Currency, Location: p.Location, MerchantReference: p.MerchantReference}
		if p.HasTotal {
			r.Total = &p.Total
		}
		if p.PaymentMethod != "" {
			r.Payment = &PaymentRequest{Method: p.PaymentMethod}
		}
		for _, l := range p.Lines {
			r.Lines = append(r.Lines, LineRequest{SKU: l.Sku, Quantity: l.Quantity, UnitPrice: l.UnitPrice, Tracked: unless(l.Untracked)})
		}
		return r, nil
	}, false, `{"customer_id":"c","currency":"EUR","lines":[{"sku":"A","quantity":2,"unit_price":3,"tracked":false,"currency":"EUR"}],"total":6,"payment":{"method":"card"},"location":"main","merchant_reference":"r"}`},
	{"cancel", func(data []byte) (any, error) {
		m, err := decodeCancel(data)
		return CancelRequest{Reason: m.GetReason()}, err
	}, true, `{"reason":"changed my mind"}`},
	{"fulfill", func(data []byte) (any, error) {
		m, err := decodeFulfill(data)
		return FulfillRequest{Items: items(m.GetItems()), Tracking: m.GetTracking()}, err
	}, true, `{"items":[{"line":1,"quantity":2}],"tracking":"1Z"}`},
	{"return", func(data []byte) (any, error) {
		m, err := decodeReturn(data)
		return ReturnRequest{Items: items(m.GetItems()), Disposition: nameOf(dispositions, m.GetDisposition()), Reason: m.GetReason(), Refund: unless(m.GetNoRefund())}, err
	}, false, `{"items":[{"line":1,"quantity":2}],"disposition":"damaged","reason":"chipped","refund":false}`},
	{"refund", func(data []byte) (any, error) {
		m, err := decodeRefund(data)
		return RefundRequest{Amount: m.GetAmount(), Reason: m.GetReason()}, err
	}, false, `{"amount":1,"reason":"late"}`},
	{"receipt", func(data []byte) (any, error) { return valueOf(decodeStockChange(data, false)) }, false, `{"quantity":1,"location":"main","reason":"ship"}`},
	{"adjustment", func(data []byte) (any, error) { return valueOf(decodeStockChange(data, true)) }, false, `{"quantity":-1,"location":"main","reason":"broken"}`},
	{"tracking", func(data []byte) (any, error) {
		m, err := decodeTracking(data)
		return TrackingRequest{Tracked: !m.GetUntracked(), Location: m.GetLocation()}, err
	}, false, `{"tracked":true,"location":"main"}`},
	{"reservation", func(data []byte) (any, error) { return valueOf(decodeReservation(data)) }, false, `{"sku":"A","quantity":1,"location":"main","ttl_seconds":60}`},
	{"retry", func(data []byte) (any, error) {
		operator, err := decodeRetry(data)
		return RetryRequest{Operator: operator}, err
	}, true, `{"operator":"eve"}`},
	{"resolve step", func(data []byte) (any, error) {
		m, err := decodeResolveStep(data)
		return ResolveStep{Decision: m.GetDecision(), Evidence: m.GetEvidence(), Operator: m.GetOperator()}, err
	}, false, `{"decision":"done","evidence":"paid in cash","operator":"eve"}`},
	{"resolve operation", func(data []byte) (any, error) {
		m, err := decodeResolveOperation(data)
		return ResolveOperation{Succeeded: m.GetSucceeded(), Evidence: m.GetEvidence(), Operator: m.GetOperator()}, err
	}, false, `{"succeeded":true,"evidence":"bank statement","operator":"eve"}`},
	{"endpoint", func(data []byte) (any, error) {
		target, types, err := decodeEndpoint(data)
		return EndpointRequest{URL: target, Types: types}, err
	}, false, `{"url":"https://example.com/","types":["order.confirmed"]}`},
	{"callback", func(data []byte) (any, error) {
		id, err := decodeCallback(data)
		return Callback{PaymentID: id}, err
	}, false, `{"payment_id":"pay_1","operation":"auth","type":"x"}`},
	{"join", func(data []byte) (any, error) {
		r, err := decodeJoin(data)
		return NodeJoin{
			Cluster: r.Cluster, Name: r.Name, HTTP: r.HTTP, Peers: r.Peers, Gossip: r.Gossip, Zone: r.Zone, Roles: r.Roles, Version: r.Version,
			Format: r.Format, Features: r.Features, Process: strconv.FormatUint(r.Process, 10), Replaces: r.Replaces, Clock: r.Clock,
		}, err
	}, false, `{"cluster":"hanse","name":"shop4","http":"a:1","peers":"a:2","gossip":"a:3","zone":"b","roles":["order"],"version":"1.2.3","format":1,"features":1,"process":"18446744073709551615","replaces":3,"clock":1764072000123456789}`},
	{"node change", func(data []byte) (any, error) { return valueOf(decodeNodeChange(data)) }, true, `{"reason":"new kernel","dry_run":true}`},
	{"move", func(data []byte) (any, error) { return valueOf(decodeMove(data)) }, false, `{"from":1,"to":4}`},
	{"recover", func(data []byte) (any, error) {
		confirm, err := decodeRecover(data)
		return RecoverRequest{Confirm: confirm}, err
	}, true, `{"confirm":"recover order/1 from node 2"}`},
	{"down after", func(data []byte) (any, error) { return valueOf(decodeDownAfter(data)) }, false, `{"seconds":600}`},
}

func valueOf[T any](v T, err error) (any, error) { return v, err }

// normal drops what a decoder does not keep: defaults, checks that were passed, and nothing in another shape.
func normal(v any) any {
	switch r := v.(type) {
	case OrderRequest:
		lines := r.Lines
		r.Lines = nil
		for _, l := range lines {
			l.Currency = ""
			l.Tracked = unless(l.Tracked != nil && !*l.Tracked)
			r.Lines = append(r.Lines, l)
		}
		if r.Payment != nil && r.Payment.Method == "" {
			r.Payment = nil
		}
		return r
	case FulfillRequest:
		if len(r.Items) == 0 {
			r.Items = nil
		}
		return r
	case ReturnRequest:
		r.Refund = unless(r.Refund != nil && !*r.Refund)
		if r.Disposition == "" {
			r.Disposition = "sellable"
		}
		return r
	case EndpointRequest:
		if len(r.Types) == 0 {
			r.Types = nil
		}
		return r
	case NodeJoin:
		if len(r.Roles) == 0 {
			r.Roles = nil
		}
		r.Process = strings.TrimLeft(r.Process, "0")
		return r
	case Callback:
		return Callback{PaymentID: r.PaymentID}
	}
	return v
}

// syntax says whether a refusal is about the JSON and not about its values: the parser stops there, at one place.
func syntax(t *testing.T, err error) bool {
	var r *refusal
	if !errors.As(err, &r) || len(r.all) == 0 {
		t.Fatalf("decoding fails with %v, want a refusal", err)
	}
	for _, v := range r.all {
		if v.Field != "" && !strings.HasPrefix(v.Field, "/") || reject.Status(v.Code) >= 500 || v.Detail == "" {
			t.Fatalf("violation %+v has no pointer, detail or code of the client's", v)
		}
	}
	v := r.all[0]
	return len(r.all) == 1 && (v.Code == reject.UnknownField || v.Code == reject.InvalidRequest && strings.HasPrefix(v.Detail, "found ") ||
		strings.HasPrefix(v.Detail, "the string") || strings.HasPrefix(v.Detail, "the field occurs") || strings.HasPrefix(v.Detail, "the number") || strings.HasPrefix(v.Detail, "a number"))
}

// FuzzBodies holds every decoder to encoding/json: what is accepted means the same there, and what encoding/json writes is
// never refused for its syntax. A digest does not tell two ways to write a body apart.
func FuzzBodies(f *testing.F) {
	for i, d := range decoders {
		f.Add(uint8(i), []byte(d.example))
		for _, body := range []string{`{}`, ``, ` { } `, `null`, `[]`, `{"a":1}`, `{"reason":"\u00e9\ud83d\ude00\"\\\/\b\f\n\r\t"}`, `{"reason":null}`, "{\"reason\":\"\xff\"}", `{"amount":9223372036854775807}`, `{"amount":-0}`, `{"quantity":1e3}`} {
			f.Add(uint8(i), []byte(body))
		}
	}
	f.Add(uint8(0), []byte(`{"currency":"EUR","lines":[{"sku":"A","quantity":1000000000,"unit_price":1000000},{"sku":"A","quantity":1,"unit_price":0}]}`))
	f.Add(uint8(0), []byte(`{"currency":"EUR","lines":[{"sku":"A","quantity":4611686018427387905,"unit_price":4}]}`))
	f.Fuzz(func(t *testing.T, which uint8, data []byte) {
		d := decoders[int(which)%len(decoders)]
		got, err := d.read(data)
		oracle := reflect.New(reflect.TypeOf(mustRead(t, d)))
		oracleErr := strict(data, oracle.Interface())
		if d.empty && len(data) == 0 {
			oracleErr = nil
		}
		if err == nil {
			if oracleErr != nil {
				t.Fatalf("%s accepts %q, which encoding/json refuses: %v", d.name, data, oracleErr)
			}
			if want := normal(oracle.Elem().Interface()); !reflect.DeepEqual(normal(got), want) {
				t.Fatalf("%s reads %q as %+v, encoding/json as %+v", d.name, data, normal(got), want)
			}
		} else {
			syntax(t, err)
		}
		newDigest().json(data) // must end, whatever it is
		if oracleErr != nil || !utf8.Valid(data) {
			return
		}
		canonical, merr := json.Marshal(oracle.Elem().Interface())
		if merr != nil {
			t.Fatal(merr)
		}
		again, againErr := d.read(canonical)
		if againErr != nil && syntax(t, againErr) {
			t.Fatalf("%s refuses %q, which encoding/json wrote: %v", d.name, canonical, againErr)
		}
		if err != nil {
			return
		}
		if againErr != nil || !reflect.DeepEqual(normal(again), normal(got)) {
			t.Fatalf("%s reads %q as %+v, and as encoding/json writes it again as %+v, %v", d.name, data, got, again, againErr)
		}
		// Reordered, respaced and escaped otherwise, with numbers as they were: the same request.
		if other := rewrite(t, data); newDigest().json(other).sum() != newDigest().json(data).sum() {
			t.Fatalf("%s: the digest tells %q and %q apart", d.name, data, other)
		}
	})
}

// mustRead returns the value of a decoder's example, which tells its type.
func mustRead(t *testing.T, d decoder) any {
	v, err := d.read([]byte(d.example))
	if err != nil {
		t.Fatalf("%s refuses its example %s: %v", d.name, d.example, err)
	}
	return v
}

// rewrite writes JSON as encoding/json does: members by name, no spaces, its own escapes.
func rewrite(t *testing.T, data []byte) []byte {
	if len(data) == 0 {
		return []byte("{}")
	}
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.UseNumber()
	var v any
	if err := decoder.Decode(&v); err != nil {
		t.Fatal(err)
	}
	out, err := json.MarshalIndent(v, " ", "\t")
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// The examples have every member, so that no name goes untested.
func TestExamplesAreWhole(t *testing.T) {
	for _, d := range decoders {
		v := mustRead(t, d)
		if err := complete([]byte(d.example), everyMember(reflect.TypeOf(v)), ""); err != nil {
			t.Errorf("%s: the example %s: %v", d.name, d.example, err)
		}
		want := reflect.New(reflect.TypeOf(v))
		if err := strict([]byte(d.example), want.Interface()); err != nil || !reflect.DeepEqual(normal(v), normal(want.Elem().Interface())) {
			t.Errorf("%s reads its example as %+v, encoding/json as %+v, %v", d.name, v, want.Elem(), err)
		}
	}
}

// A null list is refused wherever there is one: left out it may mean everything.
func TestNullIsNoList(t *testing.T) {
	for _, d := range decoders {
		for _, f := range reflect.VisibleFields(reflect.TypeOf(mustRead(t, d))) {
			if f.Type.Kind() != reflect.Slice {
				continue
			}
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			var members map[string]json.RawMessage
			if err := json.Unmarshal([]byte(d.example), &members); err != nil {
				t.Fatal(err)
			}
			members[name] = json.RawMessage("null")
			body, _ := json.Marshal(members)
			_, err := d.read(body)
			var r *refusal
			if !errors.As(err, &r) || r.all[0].Field != "/"+name || r.all[0].Code != reject.InvalidRequest {
				t.Errorf("%s: %s is read with %v, want it refused at /%s", d.name, body, err, name)
			}
		}
	}
}

// Nothing can be sent to these, so nothing is registered for them.
func TestReceiversCanBeReached(t *testing.T) {
	for target, ok := range map[string]bool{
		"https://example.com/hook?x=1": true, "http://10.0.0.1:8080": true, "http://[::1]:1/": true, "https://example.com:65535/": true,
		"https://127.0.0.1:99999/": false, "https://example.com:0/": false, "http://h/#f": false, "http://h/#": false, "http://:80/": false, "http://h:/": false,
		"ftp://h/": false, "//h/": false, "http://u:p@h/": false, "": false,
	} {
		body, _ := json.Marshal(EndpointRequest{URL: target})
		if _, _, err := decodeEndpoint(body); (err == nil) != ok {
			t.Errorf("%q is read with %v, want it accepted: %v", target, err, ok)
		}
	}
}

// Money is not authorized from a payment that says nothing; without one the provider decides how.
func TestPaymentNeedsAMethod(t *testing.T) {
	for payment, refused := range map[string]bool{``: false, `,"payment":{"method":"card"}`: false, `,"payment":{}`: true, `,"payment":{"method":""}`: true, `,"payment":{"method":null}`: true} {
		_, err := decodePlace([]byte(`{"currency":"EUR","lines":[{"sku":"A","quantity":1,"unit_price":1}]` + payment + `}`))
		var r *refusal
		if errors.As(err, &r) != refused || refused && r.all[0].Field != "/payment/method" {
			t.Errorf("an order with %q is read with %v, want refused %v at /payment/method", payment, err, refused)
		}
	}
}

// everyMember is a type whose members are all required.
func everyMember(t reflect.Type) reflect.Type {
	switch t.Kind() {
	case reflect.Pointer:
		return everyMember(t.Elem())
	case reflect.Slice:
		return reflect.SliceOf(everyMember(t.Elem()))
	case reflect.Struct:
		var fields []reflect.StructField
		for _, f := range reflect.VisibleFields(t) {
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			fields = append(fields, reflect.StructField{Name: f.Name, Type: everyMember(f.Type), Tag: reflect.StructTag(`json:"` + name + `"`)})
		}
		return reflect.StructOf(fields)
	}
	return t
}

func TestDigestsDiffer(t *testing.T) {
	bodies := []string{
		``, `[]`, `""`, `0`, `1`, `10`, `true`, `{"a":1}`, `{"a":2}`, `{"b":1}`, `{"a":"1"}`, `{"a":{}}`, `{"a":[]}`, `{"a":[1]}`, `{"a":[1,1]}`, `{"a":[[1],1]}`,
		`{"a":1,"b":2}`, `{"a":2,"b":1}`, `{"a":[1,2]}`, `{"a":[2,1]}`, `{"a":""}`, `{"a":" "}`, `{"a":{"b":1}}`, `{"a":{"b":1},"b":1}`, `{"ab":"c"}`, `{"a":"bc"}`,
		`{"x":[{"sku":"A","quantity":1},{"sku":"B","quantity":2}]}`, `{"x":[{"sku":"A","quantity":2},{"sku":"B","quantity":1}]}`, `{"x":[{"sku":"A"},{"quantity":1,"sku":"B","q":2}]}`,
	}
	seen := map[uint64]string{}
	for _, b := range bodies {
		h := newDigest().json([]byte(b)).sum()
		if other, known := seen[h]; known {
			t.Errorf("%s and %s have the same digest", b, other)
		}
		seen[h] = b
	}
	for _, same := range [][2]string{{``, `{}`}, {``, ` { } `}, {`{"a":null}`, `{}`}, {`{"a":1,"b":2}`, ` { "b" : 2 , "a":1 }`}, {`{"\u0061":"\u00e9"}`, `{"a":"é"}`}, {`{"a":[1,2]}`, "{\"a\":[ 1\n,2 ]}"}} {
		if newDigest().json([]byte(same[0])).sum() != newDigest().json([]byte(same[1])).sum() {
			t.Errorf("%s and %s have different digests", same[0], same[1])
		}
	}
	a, b := newDigest().text("POST").text("/v1/x").sum(), newDigest().text("POST/").text("v1/x").sum()
	if a == b {
		t.Error("the end of a text does not count")
	}
}

// Digests are in the log: these never change.
func TestDigestIsForever(t *testing.T) {
	got := digest(newDigest().text("POST").text("/v1/orders").sum()).json([]byte(decoders[0].example)).sum()
	if want := uint64(8266710833915790929); got != want {
		t.Errorf("digest = %d, want %d: keys of requests in the log would be refused as reused", got, want)
	}
}

func FuzzStrings(f *testing.F) {
	for _, s := range []string{"", "a", "\"\\\x00\x1f\x7f\n\r\t", "é😀\u2028", "\xff\xfe", "a\xc3"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		written := appendString(nil, s)
		var oracle string
		if err := json.Unmarshal(written, &oracle); err != nil || !utf8.Valid(written) {
			t.Fatalf("%q is written as %s: %v", s, written, err)
		}
		var want strings.Builder // each byte that is not UTF-8 becomes a replacement
		for _, r := range s {
			want.WriteRune(r)
		}
		if oracle != want.String() {
			t.Fatalf("%q is written as %s, which is %q", s, written, oracle)
		}
		p := parser{data: written}
		if back := p.str(); back != oracle || p.end() != nil {
			t.Fatalf("%s is read as %q (%v), encoding/json says %q", written, back, p.err, oracle)
		}
	})
}

func FuzzKeys(f *testing.F) {
	for _, s := range []string{"k", `"k"`, `"`, `""`, "a b", strings.Repeat("x", 256), `"a"b"`, "é"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		key, ok := parseKey(s)
		if !ok {
			return
		}
		if len(key) < 1 || len(key) > 255 || strings.ContainsFunc(key, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
			t.Fatalf("%q is accepted as key %q", s, key)
		}
		if key != s && `"`+key+`"` != s {
			t.Fatalf("%q becomes key %q", s, key)
		}
	})
}

// FuzzHeaders sends anything where clients choose: nothing may panic, and nothing but a client's error may follow.
func FuzzHeaders(f *testing.F) {
	f.Add("k", `"9"`, "wait=1", "order/1:7", "0:1", "version=1&expand=events&role=order")
	f.Add("", "*", "respond-async", "meta/0:", "start", "limit=x&stuck=maybe&service=_order._tcp")
	f.Fuzz(func(t *testing.T, key, match, prefer, mark, last, query string) {
		door, _ := newDoor(t, nil)
		for _, target := range []string{"GET /v1/orders/" + orderID, "GET /v1/orders", "GET /v1/payments", "GET /v1/audit/movements/0", "GET /v1/nodes", "GET /v1/nodes/1", "GET /v1/srv", "GET /v1/shards", "GET /v1/cluster/events", "POST /v1/orders/" + orderID + "/cancel", "PUT /v1/keyspaces/ks/keys/a", "HEAD /v1/events"} {
			method, path, _ := strings.Cut(target, " ")
			w := askRaw(door, method, path, query, map[string]string{"Idempotency-Key": key, "If-Match": match, "If-None-Match": match, "Prefer": prefer, "Hanse-Min-Position": mark, "Last-Event-Id": last})
			if w.Code >= 500 {
				t.Fatalf("%s?%s = %d %s", target, query, w.Code, w.Body)
			}
		}
	})
}
