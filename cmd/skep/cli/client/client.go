package client

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
)

const (
	// DefaultHost is where a daemon listens unless told otherwise.
	DefaultHost = "unix:///run/skep/skep.sock"

	// DefaultPort is that of daemons for users over TCP.
	DefaultPort = "2376"

	// RequestIDKey is the gRPC metadata key of the request id.
	RequestIDKey = "skep-request-id"

	// RetryPause is the time between a call that was unavailable and its one repetition: about as long as the election
	// of a new leader takes.
	RetryPause = time.Second

	// keepaliveTime and keepaliveTimeout are how soon a follower of a log notices that the daemon's machine is gone.
	keepaliveTime    = 10 * time.Second
	keepaliveTimeout = 5 * time.Second

	// maxAnswer is the size of an answer that is accepted, in bytes: a list of 100,000 tasks fits, with 5 kB of spec each.
	maxAnswer = 512 << 20

	// requestIDBytes is 128 bit of randomness.
	requestIDBytes = 16
)

var (
	// ErrUnreachable is returned when nobody answers on the socket.
	ErrUnreachable = errors.New("cannot connect to the skep daemon")
	// ErrNotAllowed is returned when the socket may not be opened by this user.
	ErrNotAllowed = errors.New("permission denied")
	// ErrHost is returned when the address of the daemon can't be one.
	ErrHost = errors.New("invalid host")
)

// Client holds the connection to one daemon.
type Client struct {
	// Control changes and shows the objects of the cluster; never nil.
	Control api.ControlClient
	// Daemon acts on this machine; never nil.
	Daemon api.DaemonClient
	// Audit shows the audit log; never nil.
	Audit api.AuditClient
	// Tasks reaches the containers of tasks; never nil.
	Tasks api.TasksClient
	// Learning records what tasks do; never nil.
	Learning api.LearningClient
	// Events tells what happens; never nil.
	Events api.EventsClient
	// Volumes reaches the volumes of nodes; never nil.
	Volumes api.VolumesClient

	host  string
	conn  *grpc.ClientConn
	pause time.Duration

	mu sync.Mutex
	// dialErr is why the last attempt to connect failed, or nil. Guarded by mu.
	dialErr error
}

// Endpoint is a daemon, and how to prove to it who asks.
type Endpoint struct {
	// Host is unix:///PATH, or tcp://HOST[:PORT].
	Host string
	// TLS is what tcp needs.
	TLS TLS
}

// Dial prepares a connection to a daemon. It does no I/O: the first call does.
// The pause is waited before the one repetition of a call; 0 is [RetryPause].
func Dial(to Endpoint, pause time.Duration) (*Client, error) {
	network, address, err := parseHost(to.Host)
	if err != nil {
		return nil, err
	}
	c := &Client{host: to.Host, pause: pause}
	if pause == 0 {
		c.pause = RetryPause
	}
	creds := insecure.NewCredentials()
	if network == "tcp" {
		host, _, _ := net.SplitHostPort(address) // parseHost made it
		config, err := to.TLS.config(host)
		if err != nil {
			return nil, err
		}
		creds = notedCreds{credentials.NewTLS(config), c.noteDialErr}
	}
	// The target is only a name: the dialer connects.
	c.conn, err = grpc.NewClient("passthrough:///skep",
		grpc.WithTransportCredentials(creds),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return c.dial(ctx, network, address) }),
		grpc.WithNoProxy(),
		grpc.WithDisableServiceConfig(),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: keepaliveTime, Timeout: keepaliveTimeout}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxAnswer)),
		grpc.WithUnaryInterceptor(c.unary),
		grpc.WithStreamInterceptor(c.stream),
	)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", to.Host, err)
	}
	c.Control, c.Daemon, c.Audit = api.NewControlClient(c.conn), api.NewDaemonClient(c.conn), api.NewAuditClient(c.conn)
	c.Tasks, c.Learning = api.NewTasksClient(c.conn), api.NewLearningClient(c.conn)
	c.Events, c.Volumes = api.NewEventsClient(c.conn), api.NewVolumesClient(c.conn)
	return c, nil
}

// Close ends the connection.
func (c *Client) Close() error { return c.conn.Close() }

// parseHost returns what host names: the path of a socket, or host:port.
func parseHost(host string) (network, address string, err error) {
	if path, ok := strings.CutPrefix(host, "unix://"); ok && filepath.IsAbs(path) {
		return "unix", path, nil
	}
	address, ok := strings.CutPrefix(host, "tcp://")
	if !ok || address == "" || strings.ContainsAny(address, "/@ ") {
		return "", "", fault.New(fault.Invalid, "%w %q: write unix:// and the absolute path of the daemon's socket, such as %s, or tcp://HOST:PORT",
			ErrHost, host, DefaultHost)
	}
	if _, _, err := net.SplitHostPort(address); err != nil {
		address = net.JoinHostPort(strings.Trim(address, "[]"), DefaultPort)
	}
	return "tcp", address, nil
}

// CheckHost returns ErrHost for what can't be the address of a daemon.
func CheckHost(host string) error {
	_, _, err := parseHost(host)
	return err
}

// IsRemote reports whether host is reached over TCP, and so needs TLS.
func IsRemote(host string) bool { return strings.HasPrefix(host, "tcp://") }

// dial connects and remembers why it could not, because gRPC keeps only a text.
func (c *Client) dial(ctx context.Context, network, address string) (net.Conn, error) {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, network, address)
	c.noteDialErr(err)
	return conn, err
}

func (c *Client) noteDialErr(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dialErr = err
}

func (c *Client) lastDialErr() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.dialErr
}

// unary gives a call its request id, repeats it once when it was unavailable (I1), and words its error (I2).
func (c *Client) unary(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker,
	opts ...grpc.CallOption,
) error {
	ctx = withRequestID(ctx)
	err := invoke(ctx, method, req, reply, conn, opts...)
	if mayPass(err) && c.lastDialErr() == nil && c.waitToRepeat(ctx) {
		err = invoke(ctx, method, req, reply, conn, opts...)
	}
	return c.explain(err)
}

// mayPass reports whether the same call may succeed soon: a daemon or manager was busy, or no leader is elected yet.
func mayPass(err error) bool {
	if err != nil && refusedByServer(err.Error()) {
		return false
	}
	return status.Code(err) == codes.Unavailable || fault.KindOf(err) == fault.NotLeader
}

// waitToRepeat reports whether the caller still wants the call after the pause.
func (c *Client) waitToRepeat(ctx context.Context) bool {
	timer := time.NewTimer(c.pause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// stream gives a stream its request id and words its errors. It is not repeated: what was sent can't be read twice.
func (c *Client) stream(ctx context.Context, desc *grpc.StreamDesc, conn *grpc.ClientConn, method string,
	open grpc.Streamer, opts ...grpc.CallOption,
) (grpc.ClientStream, error) {
	s, err := open(withRequestID(ctx), desc, conn, method, opts...)
	if err != nil {
		return nil, c.explain(err)
	}
	return &explainedStream{ClientStream: s, explain: c.explain}, nil
}

// withRequestID adds a new random request id to the call.
func withRequestID(ctx context.Context) context.Context {
	id := make([]byte, requestIDBytes)
	_, _ = rand.Read(id) // never fails: the program ends instead
	return metadata.AppendToOutgoingContext(ctx, RequestIDKey, hex.EncodeToString(id))
}

// explain turns the error of a call into a fault that says what to do about a daemon that can't be reached.
func (c *Client) explain(err error) error {
	if err == nil {
		return nil
	}
	if status.Code(err) == codes.Canceled {
		return fault.Wrap(fault.Unavailable, context.Canceled)
	}
	dialErr := c.lastDialErr()
	switch {
	case status.Code(err) != codes.Unavailable:
		return fault.FromStatus(err)
	case refusedByServer(err.Error()):
		return fault.New(fault.Unauthenticated, "the daemon at %s does not accept this certificate (%s): it must be a user's of that swarm that has not expired; "+
			"ask an admin for one (`skep user create`)", c.host, afterLast(err.Error(), "remote error: "))
	case dialErr == nil:
		return fault.FromStatus(err)
	case strings.Contains(dialErr.Error(), notReadyAlert):
		return fault.New(fault.Unavailable, "the daemon at %s lets nobody in at the moment: it starts, is locked, or is in no swarm", c.host)
	case errors.Is(dialErr, ErrServer):
		return fault.New(fault.Unauthenticated, "%s: %w", c.host, dialErr)
	case errors.Is(dialErr, syscall.EACCES), errors.Is(dialErr, syscall.EPERM):
		return fault.New(fault.PermissionDenied, "%w while connecting to the skep daemon at %s: "+
			"run the command as root, or as a member of the group skep (usermod -aG skep USER, then log in again)",
			ErrNotAllowed, c.host)
	}
	return fault.Wrap(fault.Unavailable, &unreachableError{host: c.host})
}

// afterLast returns what follows the last separator in text.
func afterLast(text, separator string) string {
	return strings.TrimSuffix(text[strings.LastIndex(text, separator)+len(separator):], `"`)
}

// unreachableError is ErrUnreachable in Docker's words.
type unreachableError struct{ host string }

func (e *unreachableError) Error() string {
	return fmt.Sprintf("Cannot connect to the skep daemon at %s. Is `skep daemon` running?", e.host)
}

func (e *unreachableError) Unwrap() error { return ErrUnreachable }

// explainedStream is a stream whose errors are faults.
type explainedStream struct {
	grpc.ClientStream
	explain func(error) error
}

// RecvMsg is that of the stream; the end of the stream stays io.EOF.
func (s *explainedStream) RecvMsg(m any) error { return s.word(s.ClientStream.RecvMsg(m)) }

// SendMsg is that of the stream; io.EOF still means that RecvMsg knows why.
func (s *explainedStream) SendMsg(m any) error { return s.word(s.ClientStream.SendMsg(m)) }

func (s *explainedStream) word(err error) error {
	if _, ok := status.FromError(err); !ok || err == nil {
		return err
	}
	return s.explain(err)
}
