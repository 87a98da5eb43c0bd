package daemon

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"github.com/skep-io/skep/agent"
	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/ca"
	"github.com/skep-io/skep/ca/catest"
	"github.com/skep-io/skep/internal/grpctest"
)

// from is a connection that comes from an address.
type from struct {
	net.Conn
	address net.Addr
}

func (f from) RemoteAddr() net.Addr { return f.address }

// queue is a listener that hands out what it is given.
type queue chan net.Conn

func (q queue) Accept() (net.Conn, error) {
	if c, ok := <-q; ok {
		return c, nil
	}
	return nil, net.ErrClosed
}
func (queue) Close() error     { return nil }
func (q queue) Addr() net.Addr { return &net.TCPAddr{} }

// arrive lets a connection arrive from an address, and returns its other end.
func (q queue) arrive(address string) net.Conn {
	client, server := net.Pipe()
	q <- from{server, &net.TCPAddr{IP: net.ParseIP(address), Port: 1}}
	return client
}

// closed reports whether the other side has closed.
func closed(c net.Conn) bool {
	if err := c.SetReadDeadline(time.Now().Add(time.Millisecond)); err != nil {
		return true
	}
	_, err := c.Read(make([]byte, 1))
	var timeout net.Error
	return !errors.As(err, &timeout) || !timeout.Timeout()
}

func TestDoorkeeper_BoundsStrangers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := make(queue, 1)
		d := newDoorkeeper(q)
		accepted := make(chan net.Conn, 2*maxStrangers)
		go func() {
			for {
				c, err := d.Accept()
				if err != nil {
					close(accepted)
					return
				}
				accepted <- c
			}
		}()
		flood := make([]net.Conn, maxStrangersOfSource)
		for i := range flood {
			flood[i] = q.arrive("192.0.2.1")
		}
		if c := q.arrive("192.0.2.1"); !closed(c) {
			t.Error("one more from the same address got in")
		}
		node := (<-accepted).(*stranger)
		node.introduce()
		if c := q.arrive("192.0.2.1"); closed(c) {
			t.Error("a node counts as a stranger")
		}
		// From very many addresses: the oldest have to go, and nobody is kept out.
		for i := range maxStrangers {
			if c := q.arrive(fmt.Sprintf("198.51.%d.%d", i/256, i%256)); closed(c) {
				t.Fatalf("stranger %d was kept out", i)
			}
		}
		if !closed(flood[1]) || closed(flood[0]) {
			t.Error("want the oldest stranger gone, and the node still there")
		}
		<-time.After(strangerLife)
		synctest.Wait()
		if d.all.Len() != 0 || len(d.sources) != 0 {
			t.Errorf("%d strangers of %d sources after their time", d.all.Len(), len(d.sources))
		}
		if closed(flood[0]) {
			t.Error("the node's connection was closed with the strangers'")
		}
		close(q)
		for c := range accepted {
			_ = c.Close()
		}
		_ = node.Close()
	})
}

// door is a node's server as the network meets it.
type door struct {
	listener *grpctest.Listener
	root     *ca.Root
	cluster  string
}

func openDoor(t *testing.T) *door {
	t.Helper()
	root, err := ca.NewRoot()
	if err != nil {
		t.Fatal(err)
	}
	o := &door{listener: grpctest.Listen(), root: root, cluster: catest.NewID()}
	id := ca.NewIdentity(o.credentials(t, api.Role_ROLE_MANAGER))
	d := newTestDaemon(t)
	server := d.networkServer(&agent.Agent{}, grpc.Creds(introducing{id.ServerCredentials()}))
	grpctest.Serve(t, server, newDoorkeeper(o.listener))
	return o
}

func (o *door) credentials(t *testing.T, role api.Role) ca.Credentials {
	t.Helper()
	return catest.Credentials(t, o.root, ca.Name{ClusterID: o.cluster, NodeID: catest.NewID(), Role: role}, 0)
}

func (o *door) dial(t *testing.T) net.Conn {
	t.Helper()
	c, err := o.listener.DialContext(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// lasts returns how long the other side keeps a connection open.
func lasts(c net.Conn) time.Duration {
	start := time.Now()
	_, _ = io.Copy(io.Discard, c)
	return time.Since(start)
}

func TestDoor_StrangersHaveLittleTimeAndLittleToSay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := openDoor(t)
		if d := lasts(o.dial(t)); d > ca.HandshakeTimeout {
			t.Errorf("one that says nothing stays for %v", d)
		}
		dribble := o.dial(t)
		go func() {
			for _, b := range []byte{22, 3, 1, 0, 200, 1, 0, 0, 196, 3, 3} { // the start of a ClientHello
				if _, err := dribble.Write([]byte{b}); err != nil {
					return
				}
				<-time.After(time.Second)
			}
		}()
		if d := lasts(dribble); d > ca.HandshakeTimeout {
			t.Errorf("one that says a byte a second stays for %v", d)
		}
		shaken := func() *tls.Conn {
			c := tls.Client(o.dial(t), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}, CurvePreferences: []tls.CurveID{tls.X25519MLKEM768}})
			if err := c.Handshake(); err != nil {
				t.Fatal(err)
			}
			return c
		}
		if d := lasts(shaken()); d > ca.HandshakeTimeout {
			t.Errorf("one that says nothing after the handshake stays for %v", d)
		}
		talker, sent := shaken(), 0
		for {
			n, err := talker.Write(make([]byte, 1<<10))
			if sent += n; err != nil || sent > 4*maxStrangerBytes {
				break
			}
			synctest.Wait()
		}
		if sent > 2*maxStrangerBytes {
			t.Errorf("a stranger may say %d bytes", sent)
		}
		_ = talker.Close()
	})
}

// A request that is far larger than any CSR never gets to a handler; a node may send large things.
func TestDoor_OnlyNodesMaySayMuch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := openDoor(t)
		member := ca.NewIdentity(o.credentials(t, api.Role_ROLE_MANAGER))
		nobody := credentials.NewTLS(&tls.Config{InsecureSkipVerify: true, CurvePreferences: []tls.CurveID{tls.X25519MLKEM768}})
		for name, c := range map[string]struct {
			creds credentials.TransportCredentials
			size  int
			cut   bool
		}{
			"a stranger's join":      {nobody, ca.MaxCSRSize, false},
			"a stranger's novel":     {nobody, 4 * maxStrangerBytes, true},
			"a node's large message": {member.ClientCredentials(ca.OUManager), 4 * maxStrangerBytes, false},
		} {
			conn, err := grpc.NewClient("passthrough:///door", grpc.WithTransportCredentials(c.creds),
				grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return o.listener.DialContext(ctx) }))
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			_, err = api.NewCAClient(conn).IssueCertificate(ctx, &api.IssueCertificateRequest{Csr: make([]byte, c.size)})
			// The node is in no swarm and says so to those whom it hears out.
			if cut := status.Code(err) != codes.FailedPrecondition; cut != c.cut {
				t.Errorf("%s: %v", name, err)
			}
			cancel()
			_ = conn.Close()
		}
	})
}
