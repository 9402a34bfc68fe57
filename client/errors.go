package client

import (
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// ErrUnavailable says that no node gave an answer in time. A change may or may not have been carried out; it is
// safe to repeat with the same key.
var ErrUnavailable = errors.New("no node answered")

// Error is the cluster's refusal, or its word that it cannot answer now (RFC 9457).
type Error struct {
	// Type is where a node explains the code, Instance the path that was asked for.
	Type     string `json:"type,omitempty"`
	Instance string `json:"instance,omitempty"`
	// Code is permanent; docs/errors.md lists all with their remedies.
	Code   string `json:"code"`
	Status int    `json:"status"`
	Title  string `json:"title,omitempty"`
	Detail string `json:"detail"`
	// Errors name the offending parts of the request.
	Errors    []Violation `json:"errors,omitempty"`
	RequestID string      `json:"request_id,omitempty"`
	// Trace is under what the nodes' logs have the request; see [WithTraceparent].
	Trace string `json:"trace,omitempty"`
	// Retryable says that the same request with the same key may succeed later.
	Retryable    bool   `json:"retryable"`
	RetryAfterMS int64  `json:"retry_after_ms,omitempty"`
	OrderID      string `json:"order_id,omitempty"`
	// Order is the refused order, when the request was to place one.
	Order *Order `json:"order,omitempty"`
}

// Violation is an offending part of a request.
type Violation struct {
	Pointer   string `json:"pointer,omitempty"`   // JSON pointer into the body
	Parameter string `json:"parameter,omitempty"` // name of a query parameter or header
	Code      string `json:"code"`
	Detail    string `json:"detail"`
}

// Field names the first offending part: a JSON pointer into the body, or the name of a parameter or header. It is
// empty when the request as a whole was refused.
func (e *Error) Field() string {
	if len(e.Errors) == 0 {
		return ""
	}
	return e.Errors[0].Pointer + e.Errors[0].Parameter
}

func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Code)
	if field := e.Field(); field != "" && !strings.HasPrefix(e.Detail, field) {
		b.WriteString(": " + field)
	}
	if e.Detail != "" {
		b.WriteString(": " + e.Detail)
	}
	return b.String()
}

// maxDetail bounds what is quoted from an answer that is no problem document, a proxy's page perhaps.
const maxDetail = 300

// decodeError reads the refusal in an answer.
func decodeError(r *response) *Error {
	e := new(Error)
	if err := json.Unmarshal(r.body, e); err != nil || e.Code == "" {
		e = &Error{
			Code: "http_" + strconv.Itoa(r.status), Detail: strings.TrimSpace(string(r.body[:min(len(r.body), maxDetail)])),
			Retryable: r.status >= 500 || r.status == http.StatusTooManyRequests,
		}
	}
	e.Status = r.status
	if e.RetryAfterMS == 0 {
		e.RetryAfterMS = retryAfter(r.header.Get("Retry-After")).Milliseconds()
	}
	return e
}

// retryAfter reads the header: seconds or a date; 0 when it says neither.
func retryAfter(v string) time.Duration {
	if seconds, err := strconv.ParseUint(v, 10, 31); err == nil {
		return time.Duration(seconds) * time.Second
	}
	if at, err := http.ParseTime(v); err == nil {
		return max(0, time.Until(at))
	}
	return 0
}

// unreached says that a node found nobody who could carry the request out. It may be the one that is cut off, so another is worth asking
// before anybody waits.
func (e *Error) unreached() bool {
	return e.Status == http.StatusGatewayTimeout || e.Status == http.StatusServiceUnavailable && e.Code == "unavailable"
}

// comesBack says whether the same request is worth repeating: the cluster is busy, elects, or has not finished. A fault
// (500) is not: a person has to look.
func (e *Error) comesBack() bool {
	switch e.Status {
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return e.Retryable
	case http.StatusConflict: // another request with this key is under way
		return e.Retryable && e.RetryAfterMS > 0
	}
	return false
}
