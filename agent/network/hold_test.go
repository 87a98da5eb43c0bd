package network

import (
	"context"
	"errors"
	"io"
	"net"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
)

// takes says whether a process of the node can listen on a port.
func takes(t *testing.T, network, address string) bool {
	t.Helper()
	var c io.Closer
	var err error
	if strings.HasPrefix(network, "udp") {
		c, err = net.ListenPacket(network, address)
	} else {
		c, err = net.Listen(network, address)
	}
	if errors.Is(err, unix.EADDRINUSE) {
		return false
	}
	if err == nil {
		err = c.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return true
}

// both is the port 7777 of each protocol.
func both() []*api.PortConfig {
	return []*api.PortConfig{
		{TargetPort: 80, PublishedPort: 7777},
		{TargetPort: 80, PublishedPort: 7777, Protocol: api.Protocol_PROTOCOL_UDP},
	}
}

const taken = ": end what has it, publish another port, or keep the service off this node (--constraint)"

func TestNetwork_TakesNoPortFromAProcessOfTheNode(t *testing.T) {
	node := newNode(t)
	outside := newOutside(t, node)
	n := newNetwork(t, t.TempDir())
	restore(t, n)
	a, pid := newContainer(t)
	a.serve(80)
	refused := func(by, want string) {
		t.Helper()
		if _, err := n.Reserve("a", both()); err == nil || err.Error() != want || fault.KindOf(err) != fault.Precondition {
			t.Errorf("N3: while %s has the port: %v, want %s", by, err, want)
		}
	}
	for _, host := range []string{"127.0.0.1", "192.0.2.1", "0.0.0.0"} {
		stop := node.serveAt(host + ":7777")
		refused(host, "port 7777/tcp is already in use on this node"+taken)
		node.reaches("the process of the node, still", strings.Replace(host, "0.0.0.0", "127.0.0.1", 1)+":7777", "")
		stop()
	}
	udp, err := net.ListenPacket("udp4", "127.0.0.1:7777")
	if err != nil {
		t.Fatal(err)
	}
	refused("udp", "port 7777/udp is already in use on this node"+taken)
	if err := udp.Close(); err != nil {
		t.Fatal(err)
	}
	if left := leftovers(t, n); len(left) > 0 || !takes(t, "tcp4", ":7777") {
		t.Errorf("I15: left: %q, or the port", left)
	}
	attach(t, n, "a", pid, both()...)
	outside.reaches("the container, when the process is gone", "192.0.2.1:7777", "192.0.2.2")
	node.reaches("the container, from the node", "127.0.0.1:7777", "")
}

func TestNetwork_HoldsAPortAsLongAsItIsPublished(t *testing.T) {
	node := newNode(t)
	dir := t.TempDir()
	n := newNetwork(t, dir)
	restore(t, n)
	_, pid := newContainer(t)
	held := func(when string, want bool) {
		t.Helper()
		for _, network := range []string{"tcp4", "udp4"} {
			for _, address := range []string{":7777", "127.0.0.1:7777"} {
				if got := !takes(t, network, address); got != want {
					t.Errorf("N3: %s: %s %s is held: %v", when, network, address, got)
				}
			}
		}
	}
	if _, err := n.Reserve("a", both()); err != nil {
		t.Fatal(err)
	}
	held("reserved", true)
	node.refused("reserved", "127.0.0.1:7777")
	attach(t, n, "a", pid, both()...)
	held("attached", true)
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	held("closed", false)

	taken := node.serveAt("127.0.0.1:7777")
	again := newNetwork(t, dir)
	restore(t, again, "a")
	if takes(t, "udp4", ":7777") {
		t.Error("N3: one port that is taken kept Restore from holding the other")
	}
	taken()
	restore(t, again, "a")
	held("restored", true)
	if _, err := again.Reserve("a", nil); err != nil {
		t.Fatal(err)
	}
	held("no longer published", false)
	attach(t, again, "a", pid, both()...)
	if err := again.Detach("a"); err != nil {
		t.Fatal(err)
	}
	held("detached", false)
	attach(t, again, "a", pid, both()...)
	if err := again.Remove(); err != nil {
		t.Fatal(err)
	}
	held("removed", false)
}

// A child of this process that has not started its program yet has copies of all that is open here.
func TestNetwork_APortIsFreeOnceItIsGivenBackWhateverStarts(t *testing.T) {
	newNode(t)
	n := newNetwork(t, t.TempDir())
	restore(t, n)
	ended, stop := context.WithCancel(t.Context())
	var starting sync.WaitGroup
	starting.Go(func() {
		for ended.Err() == nil {
			program := exec.Command("true")
			program.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET} // takes its time
			if err := program.Run(); err != nil {
				t.Error(err)
				return
			}
		}
	})
	defer starting.Wait()
	defer stop()
	for i := range 300 {
		if _, err := n.Reserve("a", both()); err != nil {
			t.Fatalf("N3: after %d containers that had the port: %v", i, err)
		}
		if err := n.Detach("a"); err != nil {
			t.Fatal(err)
		}
	}
}
