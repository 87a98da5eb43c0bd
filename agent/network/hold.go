package network

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"golang.org/x/sys/unix"

	"github.com/skep-io/skep/internal/fault"
)

// hold keeps the ports of this node from all its processes (N3), as far as they aren't held already. It returns an error of the
// kind fault.Precondition when a process has one of them, and has taken none then.
func (n *Network) hold(ports []port) error {
	for _, p := range ports {
		if _, ok := n.held[p.String()]; ok {
			continue
		}
		s, err := holdPort(p)
		if err != nil {
			n.release()
			return err
		}
		n.held[p.String()] = s
	}
	return nil
}

// holdAgain holds what the leases of the last run of the daemon publish. A process that took a port meanwhile can keep it: the
// container's rules are in force, so that its clients notice nothing.
func (n *Network) holdAgain() {
	n.release()
	for id, l := range n.leases {
		for _, p := range l.Ports {
			if err := n.hold([]port{p}); err != nil {
				n.log.Warn("a published port could not be kept from other processes of this node", "task", id, "port", p.String(), "error", err)
			}
		}
	}
}

// release gives back the ports that no lease publishes.
func (n *Network) release() {
	published := map[string]bool{}
	for _, l := range n.leases {
		for _, p := range l.Ports {
			published[p.String()] = true
		}
	}
	for p, s := range n.held {
		if published[p] {
			continue
		}
		// The port is free after an error too: nothing was ever sent that could be lost.
		_ = s.Close()
		delete(n.held, p)
	}
}

var errInUse = errors.New("is already in use on this node")

// What was given back may stay in use for a moment: a child of this process that is about to start its program has a copy of every
// socket. It closes them early in execve(2), but after whoever waits for that goes on, so that holding syscall.ForkLock does not help.
const (
	copiesEnd  = 500 * time.Millisecond
	copiesLook = 5 * time.Millisecond
)

// leaseOnceFree waits for such copies, where a port is in use.
func (n *Network) leaseOnceFree(id string, ports []port) (lease, error) {
	for begun := time.Now(); ; time.Sleep(copiesLook) {
		l, err := n.lease(id, ports)
		if !errors.Is(err, errInUse) || time.Since(begun) > copiesEnd {
			return l, err
		}
	}
}

// holdPort binds a port on all addresses, of IPv6 too where the node has it.
func holdPort(p port) (io.Closer, error) {
	s, err := bind(p)
	switch {
	case errors.Is(err, unix.EADDRINUSE):
		return nil, fault.New(fault.Precondition, "port %s %w: end what has it, publish another port, or keep the service off this node (--constraint)", p, errInUse)
	case err != nil:
		return nil, fmt.Errorf("hold port %s: %w", p, err)
	}
	return s, nil
}

func bind(p port) (io.Closer, error) {
	ctx := context.Background() // there is no name to look up, so that it doesn't block
	address := fmt.Sprintf(":%d", p.Published)
	var c net.ListenConfig
	if p.Protocol == "udp" {
		return c.ListenPacket(ctx, "udp", address)
	}
	c.SetMultipathTCP(false)
	l, err := c.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	if err := deafen(l.(*net.TCPListener)); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// deafen ends the listening, but not the binding, of a socket. Whoever connects where no rule translates, that is before the
// container is attached or by IPv6, is refused and doesn't wait for an answer that nobody gives.
//
// Listening came first as only that finds all sockets in the way. It also needs SO_REUSEADDR, lest connections that ended
// lately be in the way; without it from now on, the socket is in the way of others also when it doesn't listen.
func deafen(l *net.TCPListener) error {
	raw, err := l.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		failed = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 0)
		if failed == nil {
			failed = unix.Shutdown(int(fd), unix.SHUT_RDWR)
		}
	})
	return errors.Join(err, failed)
}
