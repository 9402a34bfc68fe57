package rest

import (
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"

	"hanse/internal/reject"
)

// The answers' constants: an SRV record's type (RFC 2782), no such name, and how long a balancer may keep what it was told, in
// seconds: about as long as it takes to find a node dead.
const (
	typeSRV  = 33
	nxDomain = 3
	srvTTL   = 5
	// All nodes weigh the same, above the 0 that stands for "hardly ever".
	srvWeight = 10
)

// listRecords answers which nodes offer a service in the JSON that public resolvers speak, so that a balancer can use it as it
// uses them. Nodes that fare well come first, suspect ones only when there is no other; any node takes any request, but one that
// hosts the service saves a hop.
func (s *server) listRecords(c *call) error {
	name, role := c.query("service"), c.query("role")
	switch {
	case name != "" && role != "":
		return refuse(reject.InvalidRequest, "role", "want service or role, not both")
	case role != "":
		name = "_" + role + "._tcp"
	case name == "":
		return refuse(reject.InvalidRequest, "service", "want for example _order._tcp")
	}
	name = strings.TrimSuffix(strings.TrimSuffix(name, "."), ".hanse")
	service, ok := strings.CutSuffix(name, "._tcp")
	if ok {
		service, ok = strings.CutPrefix(service, "_")
	}
	ok = ok && slices.Contains(services(), service)
	name += ".hanse."
	return c.json(http.StatusOK, func(e *encoder) {
		e.open('{')
		if ok {
			e.int("Status", 0)
		} else {
			e.int("Status", nxDomain)
		}
		e.key("Question")
		e.open('[')
		e.open('{')
		e.str("name", name)
		e.int("type", typeSRV)
		e.close('}')
		e.close(']')
		if ok {
			e.key("Answer")
			e.open('[')
			for _, n := range s.backend.Cluster().Nodes {
				if data := srv(&n, service); data != "" {
					e.open('{')
					e.str("name", name)
					e.int("type", typeSRV)
					e.int("TTL", srvTTL)
					e.str("data", data)
					e.close('}')
				}
			}
			e.close(']')
		}
		e.close('}')
	})
}

// srv returns a node's record for a service, empty when it is not to be chosen.
func srv(n *NodeInfo, service string) string {
	priority := 0
	switch n.Health {
	case healthy:
	case "suspect":
		priority = 10
	default:
		return ""
	}
	host, port, err := net.SplitHostPort(n.REST)
	if err != nil || n.State != "active" || !n.hosts(service) {
		return ""
	}
	return fmt.Sprintf("%d %d %s %s.", priority, srvWeight, port, strings.TrimSuffix(host, "."))
}
