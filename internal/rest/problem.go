package rest

import (
	"context"
	"errors"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"hanse/api/orderpb"
	"hanse/internal/reject"
)

// Problem is the body of every error (RFC 9457). Clients decide by Code and Retryable; the words may change.
type Problem struct {
	Type         string      `json:"type" doc:"Where the code is explained" example:"/docs/errors#out_of_stock"`
	Title        string      `json:"title" doc:"What the code means"`
	Status       int         `json:"status"`
	Detail       string      `json:"detail" doc:"This case in a sentence"`
	Instance     string      `json:"instance" doc:"The path of the request"`
	Code         string      `json:"code" doc:"A permanent code: never renamed, never reused" example:"out_of_stock"`
	Errors       []Violation `json:"errors,omitempty" doc:"The offending parts of the request"`
	RequestID    string      `json:"request_id"`
	Trace        string      `json:"trace" doc:"ID of the trace that the request belongs to, also in the header Trace-Id"`
	Retryable    bool        `json:"retryable" doc:"Whether the same request, with the same Idempotency-Key, may succeed later"`
	RetryAfterMS int64       `json:"retry_after_ms,omitempty"`
	OrderID      string      `json:"order_id,omitempty"`
	Order        *Order      `json:"order,omitempty" doc:"The refused order"`
}

// Violation is one offending part: a place in the body, or the name of a parameter or header.
type Violation struct {
	Pointer   string `json:"pointer,omitempty" doc:"JSON pointer into the body; absent when the request is refused for what it does and not for a part of it" example:"/lines/0/quantity"`
	Parameter string `json:"parameter,omitempty" doc:"Name of the query parameter, header or part of the path"`
	Code      string `json:"code"`
	Detail    string `json:"detail"`
}

// refusal is an error found by the door itself: the first violation decides the code.
type refusal struct{ all []reject.Rejection }

func (r *refusal) Error() string { return r.all[0].Error() }

// refuse returns a refusal about one part: a JSON pointer, or the name of a parameter or header.
func refuse(code, field, detail string) error {
	return &refusal{all: []reject.Rejection{{Code: code, Field: field, Detail: detail}}}
}

// failed is an error together with the order that it is about.
type failed struct {
	err   error
	order *orderpb.Order
}

func (f *failed) Error() string { return f.err.Error() }
func (f *failed) Unwrap() error { return f.err }

// problem answers a request with an error.
func (c *call) problem(err error) {
	var violations []reject.Rejection
	code, detail := reject.Internal, "the node met a fault; its log has the request ID"
	var after time.Duration

	var rejection *reject.Rejection
	var failure *reject.Failure
	var refused *refusal
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &refused):
		first := refused.all[0]
		code, detail = first.Code, first.Detail
		if first.Field != "" {
			violations, detail = refused.all, first.Field+": "+first.Detail
		}
		if more := len(violations) - 1; more > 0 {
			detail += " (and " + strconv.Itoa(more) + " more)"
		}
	case errors.As(err, &rejection):
		code, detail = rejection.Code, rejection.Detail
		if field := c.rt.place(rejection.Field); field != "" {
			violations = []reject.Rejection{{Code: rejection.Code, Field: field, Detail: rejection.Detail}}
		}
	case errors.As(err, &failure):
		c.shard = failure.Shard
		code, detail, after = failure.Code, failure.Detail, max(failure.RetryAfter, time.Millisecond)
	case errors.As(err, &tooLarge):
		code, detail = reject.BodyTooLarge, "the body has more than "+strconv.FormatInt(tooLarge.Limit, 10)+" bytes"
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		// A read that was cut short changed nothing; a write may be in the log.
		code, detail, after = reject.Unavailable, "no answer came in time", time.Second
		if c.r.Method != http.MethodGet && c.r.Method != http.MethodHead {
			code, detail = reject.OutcomeUnknown, "no answer came in time: it may or may not have been carried out"
		}
	default:
		c.s.log.Error("request failed", "request_id", c.requestID, "trace", c.trace, "route", c.route, "order_id", c.orderID, "err", err)
	}

	status := reject.Status(code)
	switch code {
	case reject.Overloaded, reject.Unavailable, reject.OutcomeUnknown, reject.KeyInProgress:
		after = max(after, time.Millisecond)
	}
	e := encoder{b: c.buffer()}
	e.open('{')
	e.str("type", "/docs/errors#"+code)
	e.str("title", title(code))
	e.int("status", int64(status))
	e.str("detail", detail)
	e.str("instance", c.r.URL.Path)
	e.str("code", code)
	if len(violations) > 0 {
		e.key("errors")
		e.open('[')
		for _, v := range violations {
			e.open('{')
			if strings.HasPrefix(v.Field, "/") {
				e.str("pointer", v.Field)
			} else if v.Field != "" {
				e.str("parameter", v.Field)
			}
			e.str("code", v.Code)
			e.str("detail", v.Detail)
			e.close('}')
		}
		e.close(']')
	}
	e.str("request_id", c.requestID)
	e.str("trace", c.trace)
	e.bool("retryable", after > 0 || code == reject.Internal)
	if after > 0 {
		e.int("retry_after_ms", after.Milliseconds())
		// The header counts whole seconds; rounding down would call the client back too early.
		c.w.Header().Set("Retry-After", strconv.FormatInt(int64((after+time.Second-1)/time.Second), 10))
	}
	var about *failed
	if errors.As(err, &about) && about.order != nil {
		c.orderID = about.order.Id
		e.str("order_id", about.order.Id)
		e.key("order")
		appendOrder(&e, about.order, true)
		c.w.Header().Set("Location", "/v1/orders/"+about.order.Id)
	}
	e.close('}')
	c.w.Header().Set("Cache-Control", "no-store")
	c.ignore()
	c.send(status, "application/problem+json", e.b)
}

// place says where in the request a shard's refusal belongs, which speaks of a member of the shard's command: a pointer into the body, the name of a
// parameter, or empty when the request does not have it. What a reservation asks for is one line to the inventory.
func (rt *route) place(field string) string {
	for _, at := range []string{field, strings.TrimPrefix(field, "/lines/0")} {
		name, _, _ := strings.Cut(strings.TrimPrefix(at, "/"), "/")
		switch {
		case hasMember(rt.in, name):
			return at
		case strings.Contains(rt.path, "{"+name+"}"), strings.Contains(rt.path, "{"+name+"...}"), slices.ContainsFunc(rt.params, func(p param) bool { return p.name == name }):
			return name
		}
	}
	return ""
}

// hasMember says whether a JSON type has a member of this name.
func hasMember(of any, name string) bool {
	if of == nil {
		return false
	}
	return slices.ContainsFunc(reflect.VisibleFields(reflect.TypeOf(of)), func(f reflect.StructField) bool {
		member, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		return member == name
	})
}

// title is the code's cause, which docs/errors.md explains further.
func title(code string) string {
	if t, ok := titles[code]; ok {
		return t
	}
	return code
}

var titles = func() map[string]string {
	m := map[string]string{}
	for _, c := range reject.Codes() {
		m[c.Code] = c.Cause
	}
	return m
}()
