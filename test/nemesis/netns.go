package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
)

// A run's namespaces are called hznemesis-<pid>-<host>: whoever finds one knows what it is, and whether its run still lives.
const namespacePrefix = "hznemesis-"

const (
	restPort     = 7400
	peerPort     = 7402
	gossipPort   = 7403
	providerPort = 7490
	bridgeName   = "hz0"
)

// netnsNetwork gives each host a network namespace of its own, with one address, on a bridge that has a namespace too: nothing
// of it can be seen from, or reach, the machine's own network. Faults are rules of iptables in the namespace of who does not hear.
type netnsNetwork struct {
	base  string // of the namespaces' names
	nodes int
}

func (n *netnsNetwork) namespace(h host) string { return fmt.Sprintf("%s-%d", n.base, int(h)) }

// address is that of a host; the last byte is its number.
func address(h host) string { return fmt.Sprintf("10.77.0.%d", int(h)) }

func (n *netnsNetwork) listen(h host, s service) string {
	port := map[service]int{restDoor: restPort, peerDoor: peerPort, gossipDoor: gossipPort, providerDoor: providerPort}[s]
	return fmt.Sprintf("%s:%d", address(h), port)
}

func (n *netnsNetwork) reach(_, to host, s service) string { return n.listen(to, s) }

func (n *netnsNetwork) prefix(h host) []string {
	return []string{"ip", "netns", "exec", n.namespace(h)}
}

// close leaves the namespaces to the process outside, which made them.
func (n *netnsNetwork) close() error { return nil }

// shape replaces the rules of each host in one step.
func (n *netnsNetwork) shape(ctx context.Context, links map[link]trouble) error {
	rules := make(map[host]*bytes.Buffer)
	for _, h := range hosts(n.nodes) {
		rules[h] = bytes.NewBufferString("*filter\n:INPUT ACCEPT\n:OUTPUT ACCEPT\n")
	}
	for _, l := range sortedLinks(links) {
		switch t := links[l]; {
		case t.Cut:
			fmt.Fprintf(rules[l.To], "-A INPUT -s %s -j DROP\n", address(l.From))
		case t.Loss > 0:
			fmt.Fprintf(rules[l.To], "-A INPUT -s %s -m statistic --mode random --probability %.3f -j DROP\n", address(l.From), t.Loss)
		}
	}
	for _, h := range hosts(n.nodes) {
		rules[h].WriteString("COMMIT\n")
		if err := pipe(ctx, rules[h], "ip", "netns", "exec", n.namespace(h), "iptables-restore"); err != nil {
			return err
		}
	}
	return nil
}

func pipe(ctx context.Context, in *bytes.Buffer, argv ...string) error {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	if in != nil {
		cmd.Stdin = in
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(argv, " "), err, bytes.TrimSpace(out))
	}
	return nil
}

// namespacesWork tells why this machine cannot have namespaces, or nil.
func namespacesWork(ctx context.Context) error {
	if os.Getuid() != 0 {
		return errors.New("not root")
	}
	for _, program := range []string{"ip", "iptables-restore"} {
		if _, err := exec.LookPath(program); err != nil {
			return fmt.Errorf("%s is not installed", program)
		}
	}
	// That it may be done and that the kernel can match at random shows only when one does it.
	probe := fmt.Sprintf("%s%d-probe", namespacePrefix, os.Getpid())
	if err := pipe(ctx, nil, "ip", "netns", "add", probe); err != nil {
		return err
	}
	rules := bytes.NewBufferString("*filter\n:INPUT ACCEPT\n-A INPUT -s 10.77.0.1 -m statistic --mode random --probability 0.5 -j DROP\nCOMMIT\n")
	err := pipe(ctx, rules, "ip", "netns", "exec", probe, "iptables-restore")
	return errors.Join(err, pipe(ctx, nil, "ip", "netns", "del", probe))
}

// makeNamespaces makes those of a run, and the cables between them.
func makeNamespaces(ctx context.Context, base string, nodes int) error {
	n := &netnsNetwork{base: base, nodes: nodes}
	sw := base + "-switch"
	steps := [][]string{
		{"ip", "netns", "add", sw},
		{"ip", "-n", sw, "link", "add", bridgeName, "type", "bridge"},
		{"ip", "-n", sw, "link", "set", bridgeName, "up"},
	}
	for _, h := range hosts(nodes) {
		ns, port := n.namespace(h), fmt.Sprintf("p%d", int(h))
		steps = append(steps,
			[]string{"ip", "netns", "add", ns},
			[]string{"ip", "-n", sw, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", ns},
			[]string{"ip", "-n", sw, "link", "set", port, "master", bridgeName, "up"},
			[]string{"ip", "-n", ns, "addr", "add", address(h) + "/24", "dev", "eth0"},
			[]string{"ip", "-n", ns, "link", "set", "eth0", "up"},
			[]string{"ip", "-n", ns, "link", "set", "lo", "up"},
		)
	}
	for _, argv := range steps {
		if err := pipe(ctx, nil, argv...); err != nil {
			return err
		}
	}
	return nil
}

// removeNamespaces removes what belongs to a run, its processes first.
func removeNamespaces(ctx context.Context, belongs func(name string) bool) error {
	out, err := exec.CommandContext(ctx, "ip", "netns", "list").Output()
	if err != nil {
		return fmt.Errorf("list namespaces: %w", err)
	}
	var errs []error
	for line := range strings.Lines(string(out)) {
		name, _, _ := strings.Cut(strings.TrimSpace(line), " ")
		if !strings.HasPrefix(name, namespacePrefix) || !belongs(name) {
			continue
		}
		pids, _ := exec.CommandContext(ctx, "ip", "netns", "pids", name).Output() // what cannot be listed cannot be killed
		for pid := range strings.FieldsSeq(string(pids)) {
			if n, err := strconv.Atoi(pid); err == nil && n > 1 {
				_ = syscall.Kill(n, syscall.SIGKILL) // an error means that it has ended
			}
		}
		errs = append(errs, pipe(ctx, nil, "ip", "netns", "del", name))
	}
	return errors.Join(errs...)
}

// leftover reports whether a namespace belongs to a run that is dead.
func leftover(name string) bool {
	pid, _, _ := strings.Cut(strings.TrimPrefix(name, namespacePrefix), "-")
	return dead(pid)
}
