// Package reject holds the permanent codes with which Hanse refuses requests.
//
// A rejection is an answer: it is replicated, final, and a retry gets the same one. Codes are part of
// the public contract. They are never renamed and never reused; docs/errors.md is printed from Codes.
package reject

import "time"

// Rejection says why a request was refused. Nothing has changed.
type Rejection struct {
	// Code is one of the permanent codes.
	Code string
	// Field is a JSON pointer to the offending part of the request; empty when it is not about one.
	Field string
	// Detail explains this case in a sentence, with the values involved.
	Detail string
}

// Error makes a Rejection an error for those who pass it along as one.
func (r *Rejection) Error() string { return r.Code + ": " + r.Detail }

// The codes.
const (
	InvalidRequest     = "invalid_request"
	InvalidID          = "invalid_id"
	UnknownField       = "unknown_field"
	BodyTooLarge       = "body_too_large"
	TooManyLines       = "too_many_lines"
	InvalidQuantity    = "invalid_quantity"
	InvalidAmount      = "invalid_amount"
	AmountOverflow     = "amount_overflow"
	InvalidCurrency    = "invalid_currency"
	MixedCurrencies    = "mixed_currencies"
	TotalMismatch      = "total_mismatch"
	KeyMissing         = "idempotency_key_missing"
	KeyReused          = "idempotency_key_reused"
	KeyInProgress      = "idempotency_key_in_progress"
	NotFound           = "not_found"
	MethodNotAllowed   = "method_not_allowed"
	OrderNotFound      = "order_not_found"
	PaymentNotFound    = "payment_not_found"
	SKUNotFound        = "sku_not_found"
	HoldNotFound       = "reservation_not_found"
	UnknownSKU         = "unknown_sku"
	OutOfStock         = "out_of_stock"
	StockNegative      = "stock_negative"
	HoldCanceled       = "reservation_canceled"
	HoldExpired        = "reservation_expired"
	HoldMismatch       = "reservation_mismatch"
	PaymentDeclined    = "payment_declined"
	PaymentMismatch    = "payment_mismatch"
	PaymentState       = "payment_state"
	OrderState         = "order_state"
	OrderTerminal      = "order_terminal"
	UseReturn          = "use_return"
	RevisionMismatch   = "revision_mismatch"
	UnknownLine        = "unknown_line"
	FulfillExceedsOpen = "fulfill_exceeds_open"
	ReturnExceeds      = "return_exceeds_fulfilled"
	RefundExceeds      = "refund_exceeds_captured"
	TooManyObjects     = "too_many_objects"
	DeadlineExceeded   = "deadline_exceeded"
	SagaNotStuck       = "saga_not_stuck"
	MessageExpired     = "message_expired"
	VersionMismatch    = "version_mismatch"
	KeyTooLong         = "key_too_long"
	ValueTooLarge      = "value_too_large"
	KeyNotFound        = "key_not_found"
	KeyspaceUnknown    = "keyspace_unknown"
	EndpointNotFound   = "endpoint_not_found"
	TooManyEndpoints   = "too_many_endpoints"
	StaleNode          = "stale_node"
	TooManyNodes       = "too_many_nodes"
	NodeNotFound       = "node_not_found"
	NodeExists         = "node_exists"
	NodeState          = "node_state"
	NodeRemoved        = "node_removed"
	UnknownNode        = "unknown_node"
	FeaturesTooOld     = "features_too_old"
	FeatureLevel       = "feature_level"
	JoinTokenWrong     = "join_token_wrong"
	JoinClosed         = "join_closed"
	ClockOff           = "clock_off"
	OtherCluster       = "other_cluster"
	NotFounded         = "not_founded"
	ShardNotFound      = "shard_not_found"
	ReplicaNotFound    = "replica_not_found"
	MalformedCommand   = "malformed_command"
	Overloaded         = "overloaded"
	Unavailable        = "unavailable"
	OutcomeUnknown     = "outcome_unknown"
	Internal           = "internal"
)

// Code describes a code for users.
type Code struct {
	Code   string
	Status int // HTTP status
	// Cause and Remedy are a sentence each.
	Cause, Remedy string
}

// Codes lists every code, in the order of the documentation.
func Codes() []Code { return codes }

// Status returns the HTTP status of a code, 500 for one that is not listed.
func Status(code string) int {
	if s, ok := statuses[code]; ok {
		return s
	}
	return 500
}

var statuses = func() map[string]int {
	m := make(map[string]int, len(codes))
	for _, c := range codes {
		m[c.Code] = c.Status
	}
	return m
}()

var codes = []Code{
	{InvalidRequest, 400, "A part of the request is not as the operation describes it: its body, a parameter or a header.", "Look at errors, which names the part, and at the operation in /openapi.json."},
	{UnknownField, 400, "The body has a field that the operation does not know.", "Check the spelling against /openapi.json; unknown fields are refused so that typos do not get lost."},
	{InvalidID, 400, "The identifier is not one that Hanse made.", "Use IDs exactly as they were returned."},
	{BodyTooLarge, 413, "The body exceeds the size limit.", "Split the request; an order has at most 2,000 lines."},
	{TooManyLines, 422, "An order has at most 2,000 lines.", "Split the order."},
	{InvalidQuantity, 422, "A quantity is zero, negative or beyond 1,000,000,000.", "Send whole units between 1 and 1,000,000,000."},
	{InvalidAmount, 422, "An amount is negative, or zero where it must not be.", "Send minor units as a non-negative integer."},
	{AmountOverflow, 422, "A line or the total exceeds what an order may be worth.", "Split the order; a total is at most 1,000,000,000,000,000 minor units."},
	{InvalidCurrency, 422, "The currency is not a code of three capital letters.", "Send an ISO 4217 code, for example GBP; whether it is in use there is not checked."},
	{MixedCurrencies, 422, "Lines of one order have different currencies.", "Place one order for each currency."},
	{TotalMismatch, 422, "The stated total is not the sum of the lines.", "Recompute the total, or leave it out."},
	{KeyMissing, 400, "The operation moves money or stock and needs an Idempotency-Key header.", "Send a unique key of 1 to 255 visible characters, and the same one when you retry."},
	{KeyReused, 422, "The idempotency key was used for a different request within 7 days.", "Use a new key for a new request: a key is one request's, of all that its caller makes."},
	{KeyInProgress, 409, "The first request with this key has not finished.", "Wait for Retry-After and send the same request again, or read the order."},
	{NotFound, 404, "There is nothing at this address.", "Check the path against /openapi.json."},
	{MethodNotAllowed, 405, "The address does not know this method.", "Use one of those that the header Allow lists; /openapi.json has them all."},
	{OrderNotFound, 404, "No order has this ID, or it has no such version.", "Check the ID and that it belongs to this cluster."},
	{PaymentNotFound, 404, "No payment has this ID.", "Check the ID; free orders have no payment."},
	{SKUNotFound, 404, "The SKU has never been received.", "Receive stock for it first; SKUs are case-sensitive."},
	{HoldNotFound, 404, "No reservation has this ID.", "Check the ID; ended reservations are forgotten after a while."},
	{UnknownSKU, 422, "An ordered SKU has never been received here.", "Check its spelling (case matters), receive stock for it, or mark the line untracked."},
	{OutOfStock, 409, "Less is available than is asked for, summed over all lines.", "Order less, or wait for a receipt."},
	{StockNegative, 409, "The adjustment would take away units that are not available.", "Release or fulfill what is held first, or adjust by less."},
	{HoldCanceled, 409, "The reservation was released before this request came.", "Make a new reservation."},
	{HoldExpired, 409, "The reservation has expired.", "Make a new reservation."},
	{HoldMismatch, 409, "The same reservation or operation ID was used with other contents.", "Repeat a request unchanged, or use a new ID."},
	{PaymentDeclined, 402, "The payment provider declined.", "Ask the customer for another payment method and place a new order."},
	{PaymentMismatch, 409, "The same payment or operation ID was used with another amount.", "Repeat a request unchanged, or use a new ID."},
	{PaymentState, 409, "The payment's amounts do not allow the operation, or it has ended and cannot be settled any more.", "Read the payment; captures are bounded by what is authorized, refunds by what is captured."},
	{OrderState, 409, "The order's state does not allow the operation.", "Read the order; the detail names its state. One that is on hold waits for a person: `hanse saga show` says why."},
	{OrderTerminal, 409, "The order has ended.", "Place a new order."},
	{UseReturn, 409, "The order is fulfilled: there is nothing left to cancel.", "Book a return instead."},
	{RevisionMismatch, 412, "The order has changed since the revision in If-Match.", "Read it again and decide anew."},
	{UnknownLine, 422, "The order has no line of this number.", "Use the line numbers of the order."},
	{FulfillExceedsOpen, 409, "More is fulfilled than is still open on the line.", "Read the order's lines and fulfill at most what is open."},
	{ReturnExceeds, 409, "More is returned than was fulfilled and not yet returned.", "Read the order's lines and return at most that."},
	{RefundExceeds, 409, "More is refunded than was charged and not yet refunded.", "Read the order and refund at most that."},
	{TooManyObjects, 409, "The order has as many fulfillments, returns or refunds as it may have (1,000 each).", "Book larger ones."},
	{DeadlineExceeded, 409, "The order could not be placed and paid within its deadline.", "Place a new order."},
	{SagaNotStuck, 409, "The order has no stuck step of this number.", "List the stuck sagas again."},
	{MessageExpired, 409, "A message between services arrived after its time.", "Nothing to do: its sender compensates."},
	{VersionMismatch, 412, "The key has another version than expected.", "Read the key and decide anew."},
	{KeyTooLong, 422, "A key has 1 to 1,024 bytes.", "Shorten it, or hash it."},
	{ValueTooLarge, 413, "A value has at most 512 KiB.", "Store large objects elsewhere and keep a reference."},
	{KeyNotFound, 404, "The key has no value.", "Put one first."},
	{KeyspaceUnknown, 404, "There is no keyspace of this name.", "Use an existing keyspace; \"default\" always exists."},
	{EndpointNotFound, 404, "No webhook endpoint has this ID.", "List the endpoints."},
	{TooManyEndpoints, 409, "There are as many webhook endpoints as there may be (100).", "Delete one that is no longer used."},
	{StaleNode, 409, "A node's data directory is an old copy, or was emptied: it has forgotten what the node has promised.", "Start the node with its latest directory; if that is lost, replace the node."},
	{TooManyNodes, 409, "The cluster has as many nodes as it may have (1,000).", "Remove a node first."},
	{NodeNotFound, 404, "The cluster has no node of this number.", "List the nodes; a number is never used again."},
	{NodeExists, 409, "Another node has this name, or this address.", "Choose another one; to put a new node in the place of one that is lost, join with its number as the one to replace."},
	{NodeState, 409, "The node's state does not allow the operation.", "Look at the node; the detail names its state, and what is still on it."},
	{NodeRemoved, 409, "The node has been decommissioned, for good.", "Let it join as a new node, with an empty directory."},
	{UnknownNode, 409, "A node uses a number that the cluster has not given out.", "Let it join; check that its directory belongs to this cluster."},
	{FeaturesTooOld, 409, "The node's program does not know all features that are in use.", "Start the node with a newer version."},
	{FeatureLevel, 409, "The feature level never goes down, and goes up only to what every member knows.", "Upgrade or decommission the node that the detail names."},
	{JoinTokenWrong, 401, "The join token is missing, or it is not the newest one.", "Make a new one with hanse node token; each makes the one before worthless."},
	{ClockOff, 409, "The clock of the node is too far from those of the cluster.", "Set the clock, keep it by NTP, and start the node again."},
	{JoinClosed, 403, "The cluster has no join token, so nobody can join.", "Create a token first."},
	{OtherCluster, 409, "The cluster is another than the request expects: by its ID, layout or number of replicas.", "Check the address, and the settings with which the node was started."},
	{NotFounded, 409, "The cluster has no first state yet.", "Wait until a majority of its first nodes has started."},
	{ShardNotFound, 404, "The cluster has no shard of this ID.", "List the shards."},
	{ReplicaNotFound, 409, "The node has no replica of the shard.", "List the shard's replicas."},
	{MalformedCommand, 400, "A node received a command it cannot read.", "Run the same version on all nodes."},
	{Overloaded, 429, "The cluster has as much work queued as it accepts.", "Retry after Retry-After, with the same idempotency key."},
	{Unavailable, 503, "No leader answers for the shard just now.", "Retry after Retry-After, with the same idempotency key."},
	{OutcomeUnknown, 504, "The request may or may not have been carried out.", "Retry with the same idempotency key: it is carried out at most once."},
	{Internal, 500, "A node met a fault.", "Look at the node's log for the request ID; a retry with the same key is safe."},
}

// Failure is the opposite of a Rejection: no answer. The request may be retried with the same
// idempotency key; only with OutcomeUnknown may it have been carried out already.
type Failure struct {
	// Code is Overloaded, Unavailable, OutcomeUnknown or KeyInProgress.
	Code string
	// Detail names the shard and what is missing; Shard is the shard alone, if it is a matter of one.
	Detail, Shard string
	// RetryAfter is when a retry is worth it.
	RetryAfter time.Duration
}

func (f *Failure) Error() string { return f.Code + ": " + f.Detail }
