package rest

import (
	"net/http"
	"strings"

	"hanse/internal/reject"
)

// The parameters that many routes share.
var (
	cursorParams = []param{
		{"cursor", "query", "string", "next_cursor of the page before"},
		{"limit", "query", "integer", "Rows of a page, 1 to 1000; 50 unless stated"},
	}
	readParams = []param{
		{"Hanse-Min-Position", "header", "string", "Hanse-Position of an earlier answer: the read sees at least that, at any replica"},
		{"consistency", "query", "string", "linearizable (unless stated) or stale"},
	}
	ifMatchParam = param{"If-Match", "header", "string", "The revision, as the ETag was: refused with 412 when the order has changed since"}
	waitParam    = param{"Prefer", "header", "string", "wait=N seconds for the outcome, or respond-async: 202 at once while there is none"}
	pageParams   = []param{
		{"after", "query", "string", "Last row of the page before"},
		{"limit", "query", "integer", "Rows of a page, 1 to 1000; 50 unless stated"},
	}
)

// routes is the API.
func (s *server) routes() []route {
	orderCodes := []string{reject.OrderNotFound, reject.OrderState, reject.OrderTerminal, reject.RevisionMismatch}
	return []route{
		{method: "POST", path: "/v1/orders", name: "placeOrder", tag: "orders", summary: "Place an order: reserve its stock, authorize its payment, confirm it",
			handle: s.placeOrder, needsKey: true, waits: true, params: []param{waitParam}, in: OrderRequest{}, out: Order{}, status: http.StatusCreated,
			codes: []string{reject.OutOfStock, reject.UnknownSKU, reject.PaymentDeclined, reject.TotalMismatch, reject.KeyInProgress}},
		{method: "GET", path: "/v1/orders", name: "listOrders", tag: "orders", summary: "List a customer's orders, newest first",
			handle: s.listOrders, reads: true, needs: []string{"customer_id"}, params: append([]param{{"customer_id", "query", "string", "Whose orders"}}, cursorParams...), out: OrderPage{}},
		{method: "GET", path: "/v1/orders/{id}", name: "getOrder", tag: "orders", summary: "Read an order, as it is or as it was",
			handle: s.getOrder, reads: true, out: Order{}, codes: []string{reject.OrderNotFound}, params: []param{
				{"version", "query", "integer", "The order after so many events"},
				{"expand", "query", "string", "payment, events or both, separated by commas"},
				{"If-None-Match", "header", "string", "An ETag: 304 when the order has not changed"},
			}},
		{method: "GET", path: "/v1/orders/{id}/events", name: "listOrderEvents", tag: "orders", summary: "Read an order's history",
			handle: s.orderEvents, reads: true, out: EventPage{}, codes: []string{reject.OrderNotFound}},
		{method: "GET", path: "/v1/orders/{id}/explain", name: "explainOrder", tag: "orders", summary: "Read an order's history in words",
			handle: s.explainOrder, reads: true, out: Story{}, codes: []string{reject.OrderNotFound}},
		{method: "POST", path: "/v1/orders/{id}/cancel", name: "cancelOrder", tag: "orders", summary: "Cancel an order, or what is still open of it",
			handle: s.cancelOrder, needsKey: true, waits: true, params: []param{ifMatchParam, waitParam}, in: CancelRequest{}, mayBeEmpty: true, out: Order{}, codes: append(orderCodes, reject.UseReturn)},
		{method: "POST", path: "/v1/orders/{id}/fulfillments", name: "fulfillOrder", tag: "orders", summary: "Ship items and charge for them",
			handle: s.fulfillOrder, needsKey: true, params: []param{ifMatchParam}, in: FulfillRequest{}, mayBeEmpty: true, out: Order{}, status: http.StatusCreated, codes: append(orderCodes, reject.FulfillExceedsOpen)},
		{method: "POST", path: "/v1/orders/{id}/returns", name: "returnItems", tag: "orders", summary: "Take items back and refund them",
			handle: s.returnItems, needsKey: true, params: []param{ifMatchParam}, in: ReturnRequest{}, out: Order{}, status: http.StatusCreated, codes: append(orderCodes, reject.ReturnExceeds)},
		{method: "POST", path: "/v1/orders/{id}/refunds", name: "refundOrder", tag: "orders", summary: "Give money back without goods",
			handle: s.refundOrder, needsKey: true, params: []param{ifMatchParam}, in: RefundRequest{}, out: Order{}, status: http.StatusCreated, codes: append(orderCodes, reject.RefundExceeds)},

		{method: "GET", path: "/v1/stock/{sku}", name: "getStock", tag: "stock", summary: "Read the stock of a SKU at all locations",
			handle: s.getStock, reads: true, out: Stock{}, codes: []string{reject.SKUNotFound}},
		{method: "POST", path: "/v1/stock/{sku}/receipts", name: "receiveStock", tag: "stock", summary: "Receive units",
			handle: s.receiveStock, needsKey: true, in: StockChange{}, out: StockChanged{}, status: http.StatusCreated},
		{method: "POST", path: "/v1/stock/{sku}/adjustments", name: "adjustStock", tag: "stock", summary: "Correct the count: damage, loss, found units",
			handle: s.adjustStock, needsKey: true, in: StockChange{}, out: StockChanged{}, status: http.StatusCreated, codes: []string{reject.StockNegative, reject.SKUNotFound}},
		{method: "PUT", path: "/v1/stock/{sku}/tracking", name: "setTracking", tag: "stock", summary: "Say whether stock of a SKU is counted",
			handle: s.setTracking, in: TrackingRequest{}, out: StockChanged{}},
		{method: "POST", path: "/v1/reservations", name: "reserveStock", tag: "stock", summary: "Hold stock without an order, for a while",
			handle: s.reserveStock, needsKey: true, in: ReservationRequest{}, out: Reservation{}, status: http.StatusCreated, codes: []string{reject.OutOfStock, reject.UnknownSKU}},
		{method: "GET", path: "/v1/reservations/{id}", name: "getReservation", tag: "stock", summary: "Read a reservation",
			handle: s.getReservation, reads: true, out: Reservation{}, codes: []string{reject.HoldNotFound}},
		{method: "DELETE", path: "/v1/reservations/{id}", name: "releaseReservation", tag: "stock", summary: "Release a reservation",
			handle: s.releaseReservation, out: Reservation{}, codes: []string{reject.HoldNotFound}},

		{method: "GET", path: "/v1/payments", name: "listPayments", tag: "payments", summary: "List the payments of one shard, by ID",
			handle: s.listPayments, params: append([]param{
				{"shard", "query", "integer", "Index of the payment shard; 0 unless stated"},
				{"stuck", "query", "boolean", "Only those that need a person"},
				{"after", "query", "string", "A place in the order of IDs, which need not be one of them; a cursor goes before it"},
			}, cursorParams...), out: PaymentPage{}},
		{method: "GET", path: "/v1/payments/{id}", name: "getPayment", tag: "payments", summary: "Read a payment with its operations at the provider",
			handle: s.getPayment, reads: true, out: Payment{}, codes: []string{reject.PaymentNotFound}},
		{method: "POST", path: "/v1/payments/{id}/operations/{op}/retry", name: "retryOperation", tag: "payments", summary: "Ask the provider again now",
			handle: s.retryOperation, in: RetryRequest{}, mayBeEmpty: true, out: Payment{}, codes: []string{reject.PaymentNotFound, reject.PaymentState}},
		{method: "POST", path: "/v1/payments/{id}/operations/{op}/resolve", name: "resolveOperation", tag: "payments", summary: "Settle an operation whose outcome the provider cannot tell",
			handle: s.resolveOperation, in: ResolveOperation{}, out: Payment{}, codes: []string{reject.PaymentNotFound, reject.PaymentState}},
		{method: "POST", path: "/v1/callbacks/psp", name: "providerCallback", tag: "payments", summary: "Tell that something happened at the provider; Hanse asks it what",
			handle: s.providerCallback, in: Callback{}, status: http.StatusAccepted},

		{method: "GET", path: "/v1/sagas", name: "listSagas", tag: "sagas", summary: "List orders that are on their way",
			handle: s.listSagas, params: append([]param{{"stuck", "query", "boolean", "Only those with a stuck step"}}, cursorParams...), out: SagaPage{}},
		{method: "GET", path: "/v1/sagas/{id}", name: "getSaga", tag: "sagas", summary: "Read an order's saga",
			handle: s.getSaga, reads: true, out: Saga{}, codes: []string{reject.OrderNotFound}},
		{method: "POST", path: "/v1/sagas/{id}/steps/{seq}/retry", name: "retryStep", tag: "sagas", summary: "Send a stuck step again now",
			handle: s.retryStep, in: RetryRequest{}, mayBeEmpty: true, out: Saga{}, codes: []string{reject.OrderNotFound, reject.SagaNotStuck}},
		{method: "POST", path: "/v1/sagas/{id}/steps/{seq}/resolve", name: "resolveStep", tag: "sagas", summary: "Settle a stuck step by hand",
			handle: s.resolveStep, in: ResolveStep{}, out: Saga{}, codes: []string{reject.OrderNotFound, reject.SagaNotStuck}},

		{method: "GET", path: "/v1/keyspaces/{keyspace}/keys/{key...}", name: "getKey", tag: "keys", summary: "Read a key: its value is the body, its version the ETag",
			handle: s.getKey, reads: true, outType: "application/octet-stream", codes: []string{reject.KeyNotFound, reject.KeyspaceUnknown}},
		{method: "PUT", path: "/v1/keyspaces/{keyspace}/keys/{key...}", name: "putKey", tag: "keys", summary: "Write a key; with a condition, compare and set",
			handle: s.putKey, inType: "application/octet-stream", out: KeyWritten{}, params: []param{
				{"If-Match", "header", "string", "Only when the key has this version, as the ETag was"},
				{"If-None-Match", "header", "string", "*: only when the key does not exist"},
			}, codes: []string{reject.VersionMismatch, reject.KeyTooLong, reject.ValueTooLarge, reject.KeyspaceUnknown}},
		{method: "DELETE", path: "/v1/keyspaces/{keyspace}/keys/{key...}", name: "deleteKey", tag: "keys", summary: "Delete a key",
			handle: s.deleteKey, out: KeyWritten{}, codes: []string{reject.KeyNotFound, reject.KeyspaceUnknown}},

		{method: "GET", path: "/v1/events", name: "followEvents", tag: "events", summary: "Follow all events as they happen (server-sent events)",
			handle: s.follow, stream: true, outType: "text/event-stream", params: []param{
				{"types", "query", "string", "Event types separated by commas, or a prefix such as payment.*"},
				{"after", "query", "string", "A position to start from, as 0:14,1:7 or order/0:14, or start; shards that it does not name start at their beginning; from now on unless stated"},
				{"Last-Event-ID", "header", "string", "The id of the last event that was received: goes on behind it"},
			}},
		{method: "GET", path: "/v1/webhooks", name: "listEndpoints", tag: "events", summary: "List webhook receivers", handle: s.listEndpoints, out: EndpointPage{}},
		{method: "POST", path: "/v1/webhooks", name: "createEndpoint", tag: "events", summary: "Register a webhook receiver; the answer has the secret, once",
			handle: s.createEndpoint, in: EndpointRequest{}, out: Endpoint{}, status: http.StatusCreated, codes: []string{reject.TooManyEndpoints}},
		{method: "DELETE", path: "/v1/webhooks/{id}", name: "deleteEndpoint", tag: "events", summary: "Remove a webhook receiver",
			handle: s.deleteEndpoint, status: http.StatusNoContent, codes: []string{reject.EndpointNotFound}},
		{method: "POST", path: "/v1/webhooks/{id}/enable", name: "enableEndpoint", tag: "events", summary: "Deliver again to a receiver that was disabled",
			handle: s.enableEndpoint, out: Endpoint{}, codes: []string{reject.EndpointNotFound}},

		{method: "GET", path: "/v1/nodes", name: "listNodes", tag: "cluster", summary: "List the nodes, how they fare, and who reaches whom",
			handle: s.listNodes, out: NodePage{}, free: true, params: []param{
				{"role", "query", "string", "Only those that host this service"},
				{"state", "query", "string", "Only those that are " + strings.Join(nodeStates, ", ")},
				{"health", "query", "string", "Only those that are " + strings.Join(nodeHealths, ", ")},
			}},
		{method: "POST", path: "/v1/nodes", name: "joinNode", tag: "cluster", summary: "Admit a node; nodes ask for it themselves (hanse serve --join)",
			handle: s.joinNode, in: NodeJoin{}, out: NodeJoined{}, status: http.StatusCreated,
			params: []param{{"Authorization", "header", "string", "Bearer and the join token"}}, codes: []string{reject.JoinTokenWrong, reject.TooManyNodes}},
		{method: "GET", path: "/v1/nodes/{id}", name: "getNode", tag: "cluster", summary: "Read a node",
			handle: s.getNode, out: Node{}, free: true, codes: []string{reject.NodeNotFound}},
		{method: "POST", path: "/v1/nodes/{id}/drain", name: "drainNode", tag: "cluster", summary: "Take the leaderships from a node, so that it can be stopped",
			handle: s.changeNode("draining"), in: NodeChange{}, mayBeEmpty: true, out: Node{}, codes: []string{reject.NodeNotFound}},
		{method: "POST", path: "/v1/nodes/{id}/decommission", name: "decommissionNode", tag: "cluster", summary: "Move everything away from a node, for good",
			handle: s.changeNode("decommissioning"), in: NodeChange{}, mayBeEmpty: true, out: Node{}, codes: []string{reject.NodeNotFound}},
		{method: "POST", path: "/v1/nodes/{id}/activate", name: "activateNode", tag: "cluster", summary: "Use a node again that was drained or is being decommissioned",
			handle: s.changeNode("active"), in: NodeChange{}, mayBeEmpty: true, out: Node{}, codes: []string{reject.NodeNotFound}},
		{method: "POST", path: "/v1/nodes/{id}/forget", name: "forgetNode", tag: "cluster", summary: "Say that a node is lost for good: its replicas are rebuilt, and it is never heard again",
			handle: s.changeNode("decommissioned"), in: NodeChange{}, mayBeEmpty: true, out: Node{}, codes: []string{reject.NodeNotFound}},
		{method: "POST", path: "/v1/join-tokens", name: "createJoinToken", tag: "cluster", summary: "Make a token that lets nodes join; the one before is worth nothing from then on",
			handle: s.createJoinToken, out: JoinToken{}, status: http.StatusCreated},
		{method: "GET", path: "/v1/srv", name: "listRecords", tag: "cluster", summary: "Find the nodes that offer a service, as DNS SRV records in JSON",
			handle: s.listRecords, out: Records{}, free: true, params: []param{
				{"service", "query", "string", "For example _order._tcp"},
				{"role", "query", "string", "The same without the form: order"},
			}},
		{method: "GET", path: "/v1/shards", name: "listShards", tag: "cluster", summary: "List the shards, their replicas and what moves",
			handle: s.listShards, out: ShardPage{}, free: true, params: []param{{"service", "query", "string", "Only those of this service"}}},
		{method: "POST", path: "/v1/shards/{service}/{index}/move", name: "moveReplica", tag: "cluster", summary: "Move a replica from one node to another",
			handle: s.moveReplica, in: MoveRequest{}, out: MoveAccepted{}, status: http.StatusAccepted, codes: []string{reject.ShardNotFound, reject.NodeNotFound}},
		{method: "POST", path: "/v1/shards/{service}/{index}/recover", name: "recoverShard", tag: "cluster",
			summary: "Go on with one replica of a shard whose majority is lost for good: without confirm it says what that would do",
			handle:  s.recoverShard, in: RecoverRequest{}, mayBeEmpty: true, out: ShardRecovery{}, codes: []string{reject.ShardNotFound}},
		{method: "PUT", path: "/v1/settings/down-after", name: "setDownAfter", tag: "cluster", summary: "Set how long a node has to be dead before its replicas are rebuilt",
			handle: s.setDownAfter, in: DownAfter{}, out: DownAfter{}},
		{method: "GET", path: "/v1/cluster/events", name: "listClusterEvents", tag: "cluster", summary: "Read what happened to the cluster, oldest first",
			handle: s.clusterEvents, out: JournalPage{}, params: []param{
				{"after", "query", "integer", "seq of the last event of the page before"},
				{"limit", "query", "integer", "Events of a page, 1 to 1000; 50 unless stated"},
			}},
		{method: "GET", path: "/v1/audit/orders/{shard}", name: "scanOrders", tag: "audit", summary: "Page over the orders of a shard, each with its events, as protobuf (api/orderpb, HistoryScan)",
			handle: s.scanOrders, params: pageParams, outType: protobuf},
		{method: "GET", path: "/v1/audit/items/{shard}", name: "scanItems", tag: "audit", summary: "Page over the stock counters of a shard",
			handle: s.scanItems, params: append([]param{{"after_location", "query", "string", "Location of the last row of the page before"}}, pageParams...), out: ItemScan{}},
		{method: "GET", path: "/v1/audit/holds/{shard}", name: "scanHolds", tag: "audit", summary: "Page over the holds of a shard", handle: s.scanHolds, params: pageParams, out: HoldScan{}},
		{method: "GET", path: "/v1/audit/movements/{shard}", name: "scanMovements", tag: "audit", summary: "Page over receipts and adjustments of a shard",
			handle: s.scanMovements, params: pageParams, out: MovementScan{}},
		{method: "GET", path: "/v1/audit/payments/{shard}", name: "scanPayments", tag: "audit", summary: "Page over the payments of a shard",
			handle: s.scanPayments, params: pageParams, out: PaymentPage{}},

		{method: "GET", path: "/livez", name: "livez", tag: "node", summary: "Whether the process is alive", handle: s.livez, free: true, outType: "text/plain"},
		{method: "GET", path: "/readyz", name: "readyz", tag: "node", summary: "Whether every shard here has a leader", handle: s.readyz, free: true, outType: "text/plain"},
		{method: "GET", path: "/metrics", name: "metrics", tag: "node", summary: "Metrics for Prometheus", handle: s.scrape, free: true, outType: "text/plain"},
		{method: "GET", path: "/version", name: "version", tag: "node", summary: "What the node runs", handle: s.version, free: true, out: Version{}},
		{method: "GET", path: "/openapi.json", name: "openapi", tag: "node", summary: "This description", handle: s.openapi, free: true, outType: "application/json"},
		{method: "GET", path: "/docs", name: "docs", tag: "node", summary: "The API for people", handle: s.docs, free: true, outType: "text/html"},
		{method: "GET", path: "/docs/errors", name: "errorDocs", tag: "node", summary: "Every error code with cause and remedy", handle: s.errorDocs, free: true, outType: "text/html"},
	}
}
