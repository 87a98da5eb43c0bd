package network

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
)

// patience bounds what must arrive; refusal bounds what must not.
const (
	patience = time.Minute
	refusal  = 300 * time.Millisecond
)

// place is a network namespace, kept by a process that waits for its input to end.
type place struct {
	t  *testing.T
	ns netns.NsHandle
}

// newNode moves the test's thread into a network namespace of its own. It skips without root.
func newNode(t *testing.T) *place {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, to make network namespaces")
	}
	runtime.LockOSThread() // for good: the thread ends with the test
	node, err := netns.New()
	if err != nil {
		t.Fatalf("make a network namespace: %v", err)
	}
	t.Cleanup(func() { _ = node.Close() })
	lo, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.LinkSetUp(lo)
	}
	if err == nil { // a new namespace begins with what the machine has, which may run other containers
		err = os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("0"), 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	return &place{t: t, ns: node}
}

// newContainer returns the pid of a process in a network namespace of its own.
func newContainer(t *testing.T) (*place, int) {
	t.Helper()
	cmd := exec.Command("cat")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	in, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	ns, err := netns.GetFromPid(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = ns.Close()
		_ = in.Close()
		_ = cmd.Wait()
	})
	return &place{t: t, ns: ns}, cmd.Process.Pid
}

// inside runs f on a thread in the namespace.
func (p *place) inside(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		if err := netns.Set(p.ns); err != nil {
			done <- err
			return
		}
		done <- f()
	}()
	return <-done
}

// serve answers connections to a port with the client's address.
func (p *place) serve(port int) { p.serveAt(fmt.Sprintf(":%d", port)) }

// serveAt does so at one address, until stop is called.
func (p *place) serveAt(address string) (stop func()) {
	p.t.Helper()
	var l net.Listener
	err := p.inside(func() (err error) {
		l, err = net.Listen("tcp4", address)
		return err
	})
	if err != nil {
		p.t.Fatal(err)
	}
	stop = func() { _ = l.Close() }
	p.t.Cleanup(stop)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			host, _, _ := net.SplitHostPort(conn.RemoteAddr().String())
			_, _ = io.WriteString(conn, host+"\n")
			_ = conn.Close()
		}
	}()
	return stop
}

// ask connects and returns the client's address as the server saw it.
func (p *place) ask(address string, within time.Duration) (from string, err error) {
	err = p.inside(func() error {
		conn, err := net.DialTimeout("tcp4", address, within)
		if err != nil {
			return err
		}
		defer conn.Close()
		if err := conn.SetDeadline(time.Now().Add(within)); err != nil {
			return err
		}
		from, err = bufio.NewReader(conn).ReadString('\n')
		return err
	})
	return strings.TrimSpace(from), err
}

func (p *place) reaches(what, address, from string) {
	p.t.Helper()
	got, err := p.ask(address, patience)
	if err != nil || from != "" && got != from {
		p.t.Errorf("%s: %s came from %q (%v), want %q", what, address, got, err, from)
	}
}

func (p *place) refused(what, address string) {
	p.t.Helper()
	if got, err := p.ask(address, refusal); err == nil {
		p.t.Errorf("%s: %s was reached from %s", what, address, got)
	}
}

// newOutside connects a namespace to the node by another way than the bridge: node 192.0.2.1, outside 192.0.2.2.
func newOutside(t *testing.T, node *place) *place {
	t.Helper()
	outside, pid := newContainer(t)
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "uplink"
	pair := &netlink.Veth{LinkAttrs: attrs, PeerName: "eth0", PeerNamespace: netlink.NsPid(pid)}
	up := func(name, address string) error {
		link, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		a, err := netlink.ParseAddr(address)
		if err != nil {
			return err
		}
		return errors.Join(netlink.AddrAdd(link, a), netlink.LinkSetUp(link))
	}
	err := errors.Join(netlink.LinkAdd(pair), up("uplink", "192.0.2.1/24"), outside.inside(func() error {
		if err := up("eth0", "192.0.2.2/24"); err != nil {
			return err
		}
		return netlink.RouteAdd(&netlink.Route{Gw: net.IPv4(192, 0, 2, 1)})
	}))
	if err != nil {
		t.Fatal(err)
	}
	return outside
}

func newNetwork(t *testing.T, dir string) *Network {
	t.Helper()
	n, err := New(Config{Dir: dir, Subnet: netip.MustParsePrefix("10.77.0.0/24")})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func restore(t *testing.T, n *Network, ids ...string) {
	t.Helper()
	if err := n.Restore(ids); err != nil {
		t.Fatal(err)
	}
}

func attach(t *testing.T, n *Network, id string, pid int, ports ...*api.PortConfig) string {
	t.Helper()
	a, err := n.Reserve(id, ports)
	if err == nil {
		err = n.Attach(id, pid, nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	return a.String()
}

func TestNetwork_LetsPassWhatItSays(t *testing.T) {
	node := newNode(t)
	outside := newOutside(t, node)
	n := newNetwork(t, t.TempDir())
	restore(t, n)
	a, pidA := newContainer(t)
	b, pidB := newContainer(t)
	addressA := attach(t, n, "a", pidA, &api.PortConfig{TargetPort: 80, PublishedPort: 8080})
	addressB := attach(t, n, "b", pidB)
	a.serve(80)
	a.serve(81)
	b.serve(80)
	node.serve(9000)
	outside.serve(7000)

	a.reaches("container to outside, as the node", "192.0.2.2:7000", "192.0.2.1")
	b.reaches("container to container", addressA+":81", addressB)
	node.reaches("node to container", addressB+":80", "10.77.0.1")
	a.reaches("container to its own loopback", "127.0.0.1:80", "127.0.0.1")
	outside.reaches("outside to published port, with its address", "192.0.2.1:8080", "192.0.2.2")
	node.reaches("node to its published port", "192.0.2.1:8080", "")
	node.reaches("node to its published port on loopback", "127.0.0.1:8080", "10.77.0.1")
	b.reaches("container to published port of its node", "192.0.2.1:8080", "")
	a.reaches("container to its own published port", "192.0.2.1:8080", "")

	metadata, _ := netlink.ParseAddr("169.254.169.254/32")
	link, _ := netlink.LinkByName("uplink")
	err := errors.Join(
		netlink.RouteAdd(&netlink.Route{Dst: metadata.IPNet, LinkIndex: link.Attrs().Index}),
		outside.inside(func() error {
			eth0, err := netlink.LinkByName("eth0")
			return errors.Join(err, netlink.AddrAdd(eth0, metadata))
		}))
	if err != nil {
		t.Fatal(err)
	}
	node.reaches("node to its cloud", "169.254.169.254:7000", "")
	a.refused("container to the node's cloud", "169.254.169.254:7000")
	a.refused("container to node", "192.0.2.1:9000")
	a.refused("container to gateway", "10.77.0.1:9000")
	outside.refused("outside to container", addressA+":81")
	outside.refused("outside to target port", addressB+":80")
}

func TestNetwork_CountsTheTrafficOfAContainer(t *testing.T) {
	newNode(t)
	n := newNetwork(t, t.TempDir())
	restore(t, n)
	if got, err := n.Traffic("a"); got != nil || err != nil {
		t.Errorf("traffic of a container without a network: %v, %v", got, err)
	}
	a, aPID := newContainer(t)
	b, bPID := newContainer(t)
	attach(t, n, "a", aPID)
	to := attach(t, n, "b", bPID)
	b.serve(80)
	for range 3 {
		if _, err := a.ask(to+":80", patience); err != nil {
			t.Fatal(err)
		}
	}
	sender, err := n.Traffic("a")
	if err != nil {
		t.Fatal(err)
	}
	receiver, err := n.Traffic("b")
	if err != nil {
		t.Fatal(err)
	}
	// Each connection takes at least a SYN and an acknowledgement of the sender's, and an answer.
	if sender.GetOutPackets() < 6 || receiver.GetInPackets() < 6 || receiver.GetInBytes() < 6*40 || sender.GetInPackets() < 3 || sender.GetInBytes() < 3*40 {
		t.Errorf("sender %v, receiver %v", sender, receiver)
	}
}

func TestNetwork_RefusesSpoofedAddresses(t *testing.T) {
	node := newNode(t)
	n := newNetwork(t, t.TempDir())
	restore(t, n)
	a, pidA := newContainer(t)
	b, pidB := newContainer(t)
	attach(t, n, "a", pidA)
	addressB := attach(t, n, "b", pidB)
	b.serve(80)
	a.reaches("before", addressB+":80", "10.77.0.2")
	err := a.inside(func() error {
		link, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		old, _ := netlink.ParseAddr("10.77.0.2/24")
		spoofed, _ := netlink.ParseAddr("10.77.0.99/24")
		return errors.Join(netlink.AddrDel(link, old), netlink.AddrAdd(link, spoofed))
	})
	if err != nil {
		t.Fatal(err)
	}
	a.refused("with another address", addressB+":80")
	node.reaches("the other one still", addressB+":80", "")
}

func TestNetwork_GuardsLoopbackAgainstContainers(t *testing.T) {
	node := newNode(t)
	n := newNetwork(t, t.TempDir())
	restore(t, n)
	a, pid := newContainer(t)
	attach(t, n, "a", pid)
	node.serve(9000)
	err := a.inside(func() error {
		for _, name := range []string{"conf/all/route_localnet", "conf/eth0/route_localnet"} {
			if _, err := setSysctl(name, "1"); err != nil {
				return err
			}
		}
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		eth0, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		_, target, _ := net.ParseCIDR("127.0.0.99/32")
		return errors.Join(
			netlink.LinkSetDown(lo),
			netlink.RouteAdd(&netlink.Route{Dst: target, Gw: net.IPv4(10, 77, 0, 1), LinkIndex: eth0.Attrs().Index, Table: unix.RT_TABLE_MAIN}),
		)
	})
	if err != nil {
		t.Fatal(err)
	}
	a.refused("container to the node's loopback", "127.0.0.99:9000")
}

func TestNetwork_DetachLeavesNothing(t *testing.T) {
	node := newNode(t)
	if _, err := setSysctl(forwardParameter, "0"); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	n := newNetwork(t, dir)
	restore(t, n)
	_, pid := newContainer(t)
	attach(t, n, "a", pid, &api.PortConfig{TargetPort: 80, PublishedPort: 8080})
	if _, err := n.Reserve("b", []*api.PortConfig{{TargetPort: 90, PublishedPort: 8080}}); !errors.Is(err, ErrPublished) || fault.KindOf(err) != fault.Unavailable {
		t.Errorf("I12: the same port again: %v", err)
	}
	for range 2 {
		if err := n.Detach("a"); err != nil {
			t.Fatal(err)
		}
	}
	if _, ok := n.Address("a"); ok || len(leftovers(t, n)) > 0 {
		t.Errorf("I15: left: %q", leftovers(t, n))
	}
	node.refused("published port", "127.0.0.1:8080")
	if err := n.Remove(); err != nil {
		t.Fatal(err)
	}
	if links, err := netlink.LinkList(); err != nil || len(links) != 1 {
		t.Errorf("I15: %d interfaces, %v", len(links), err)
	}
	if files, err := os.ReadDir(dir); err != nil || len(files) > 0 {
		t.Errorf("I15: %v, %v", files, err)
	}
	if on, err := setSysctl(forwardParameter, "0"); on || err != nil {
		t.Errorf("I15: the machine goes on forwarding (%v)", err)
	}
	restore(t, n)
	if got := attach(t, n, "c", pid); got != "10.77.0.3" {
		t.Errorf("the address %s was used again at once", got)
	}
}

func TestNetwork_ARefusedAttachLeavesNothing(t *testing.T) {
	newNode(t)
	n := newNetwork(t, t.TempDir())
	restore(t, n)
	if _, err := n.Reserve("a", nil); err != nil {
		t.Fatal(err)
	}
	if err := n.Attach("a", 1<<22-1, nil); err == nil {
		t.Error("attached a process that does not exist")
	}
	if err := n.Detach("a"); err != nil {
		t.Fatal(err)
	}
	if err := n.Attach("a", os.Getpid(), nil); fault.KindOf(err) != fault.NotFound {
		t.Errorf("attached without an address: %v", err)
	}
	if left := leftovers(t, n); len(left) > 0 {
		t.Errorf("I15: left: %q", left)
	}
	if _, err := n.Reserve("../a", nil); fault.KindOf(err) != fault.Invalid {
		t.Errorf("a path as an id: %v", err)
	}
}

// leftovers returns what there is of containers: interfaces and files.
func leftovers(t *testing.T, n *Network) []string {
	t.Helper()
	out, err := vethsOf(n.bridge)
	if err != nil {
		t.Fatal(err)
	}
	files, err := os.ReadDir(n.dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if f.Name() != forwardingFile {
			out = append(out, f.Name())
		}
	}
	return out
}

func TestNetwork_RestoreKeepsTheLivingAndSweepsTheRest(t *testing.T) {
	node := newNode(t)
	outside := newOutside(t, node)
	dir := t.TempDir()
	n := newNetwork(t, dir)
	restore(t, n)
	a, pidA := newContainer(t)
	_, pidB := newContainer(t)
	addressA := attach(t, n, "a", pidA, &api.PortConfig{TargetPort: 80, PublishedPort: 8080})
	attach(t, n, "b", pidB)
	a.serve(80)
	if err := removeRules(); err != nil {
		t.Fatal(err)
	}
	again := newNetwork(t, dir)
	restore(t, again, "a", "never-seen")
	if got, ok := again.Address("a"); !ok || got.String() != addressA {
		t.Errorf("address of a: %s, want %s", got, addressA)
	}
	outside.reaches("published port after the restart", "192.0.2.1:8080", "192.0.2.2")
	want := []string{vethName("a"), "a.json"}
	if got := leftovers(t, again); !slices.Equal(got, want) {
		t.Errorf("I15: there is %q, want %q", got, want)
	}
}

func TestNetwork_DoesNotForwardForOthers(t *testing.T) {
	node := newNode(t)
	outside := newOutside(t, node)
	other, pid := newContainer(t)
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "second"
	err := errors.Join(
		netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: containerInterface, PeerNamespace: netlink.NsPid(pid)}),
		configure(pid, netip.MustParsePrefix("198.51.100.2/24"), netip.MustParseAddr("198.51.100.1"), nil),
	)
	if err != nil {
		t.Fatal(err)
	}
	link, err := netlink.LinkByName("second")
	if err != nil {
		t.Fatal(err)
	}
	gateway, _ := netlink.ParseAddr("198.51.100.1/24")
	if err := errors.Join(netlink.AddrAdd(link, gateway), netlink.LinkSetUp(link)); err != nil {
		t.Fatal(err)
	}
	other.serve(80)
	n := newNetwork(t, t.TempDir())
	restore(t, n)
	restore(t, n) // the second time, forwarding is on already
	node.reaches("the node itself", "198.51.100.2:80", "")
	outside.refused("through the node", "198.51.100.2:80")
}

func TestNetwork_RefusesASubnetInUse(t *testing.T) {
	node := newNode(t)
	newOutside(t, node)
	n, err := New(Config{Dir: t.TempDir(), Subnet: netip.MustParsePrefix("192.0.0.0/16")})
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Restore(nil); !errors.Is(err, ErrOverlap) || !strings.Contains(err.Error(), "uplink") {
		t.Errorf("got %v", err)
	}
}
