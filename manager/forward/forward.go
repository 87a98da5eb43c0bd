package forward

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/object"
)

// Metadata keys.
const (
	// requestIDKey carries the id that makes a retry safe.
	requestIDKey = "skep-request-id"
	// forwardedKey marks a forwarded call; its value is the node id of the manager that forwarded it.
	forwardedKey = "skep-forwarded-by"
	// answeredKey is a trailer of each answer to a forwarded call: the leader's handler ran (F3).
	answeredKey = "skep-answered"
)

const (
	// maxWait bounds how long a call waits for a leader: several elections.
	maxWait = 10 * time.Second
	// The pause before another try when nothing changed: short at first, because most often the news is on its way.
	firstPause = 50 * time.Millisecond
	maxPause   = time.Second
)

const noLeader = "The swarm does not have a leader. It's possible that too few managers are online. " +
	"Make sure more than half of the managers are online."

// Config is what a Forwarder needs; all fields are required.
type Config struct {
	// NodeID is this manager's.
	NodeID string
	// Leadership returns who leads, and a channel that is closed when that changes.
	Leadership func() (store.Leadership, <-chan struct{})
	// Dial makes a connection to a manager without waiting for it. Its peer must prove to be the node.
	Dial func(address, nodeID string) (*grpc.ClientConn, error)
	// Origin returns the metadata that tell the leader who made the call in ctx.
	Origin func(ctx context.Context) metadata.MD
}

// Forwarder sends calls to the leader.
type Forwarder struct {
	// Constant after New.
	cfg     Config
	methods map[string]protoreflect.MessageType // the answer's type by the full name of each method that needs the leader

	mu     sync.Mutex
	conn   *grpc.ClientConn // guarded by mu; to address, or nil
	to     store.Leadership // guarded by mu
	closed bool             // guarded by mu
}

// New returns a Forwarder for all methods of package api that are declared to need the leader.
func New(cfg Config) (*Forwarder, error) {
	if cfg.NodeID == "" || cfg.Leadership == nil || cfg.Dial == nil || cfg.Origin == nil {
		return nil, errors.New("forward: NodeID, Leadership, Dial and Origin are required")
	}
	methods, err := leaderMethods()
	if err != nil {
		return nil, err
	}
	return &Forwarder{cfg: cfg, methods: methods}, nil
}

// leaderMethods finds the methods that only the leader can answer, by the rule declared beside each.
func leaderMethods() (map[string]protoreflect.MessageType, error) {
	methods := map[string]protoreflect.MessageType{}
	var failed error
	protoregistry.GlobalFiles.RangeFilesByPackage(api.File_skep_v1_access_proto.Package(), func(file protoreflect.FileDescriptor) bool {
		for i := range file.Services().Len() {
			service := file.Services().Get(i)
			for j := range service.Methods().Len() {
				method := service.Methods().Get(j)
				access, _ := proto.GetExtension(method.Options(), api.E_Access).(*api.Access)
				if !access.GetLeader() {
					continue
				}
				if method.IsStreamingClient() || method.IsStreamingServer() {
					failed = fmt.Errorf("%s needs the leader, but a stream can't be forwarded", method.FullName())
					return false
				}
				answer, err := protoregistry.GlobalTypes.FindMessageByName(method.Output().FullName())
				if err != nil {
					failed = fmt.Errorf("%s: %w", method.FullName(), err)
					return false
				}
				methods["/"+string(service.FullName())+"/"+string(method.Name())] = answer
			}
		}
		return true
	})
	return methods, failed
}

// Close ends the connection to the leader. Calls that are under way fail, and so do those that wait for a leader.
func (f *Forwarder) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	if f.conn == nil {
		return nil
	}
	err := f.conn.Close()
	f.conn = nil
	return err
}

func (f *Forwarder) isClosed() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.closed
}

// Unary returns the interceptor. It comes after the one that authorizes.
func (f *Forwarder) Unary() grpc.UnaryServerInterceptor {
	return func(ctx context.Context, request any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		answer, ok := f.methods[info.FullMethod]
		message, isProto := request.(proto.Message)
		if !ok || !isProto {
			return handler(ctx, request)
		}
		md, _ := metadata.FromIncomingContext(ctx)
		if len(md.Get(forwardedKey)) > 0 {
			return f.answerForwarded(ctx, request, handler)
		}
		if len(md.Get(requestIDKey)) == 0 {
			md = metadata.Join(md, metadata.Pairs(requestIDKey, object.NewID()))
			ctx = metadata.NewIncomingContext(ctx, md)
		}
		return f.answer(ctx, call{method: info.FullMethod, request: message, answer: answer, handler: handler})
	}
}

// answerForwarded answers a call that another manager forwarded: here or not at all (F1).
func (f *Forwarder) answerForwarded(ctx context.Context, request any, handler grpc.UnaryHandler) (any, error) {
	if leader, _ := f.cfg.Leadership(); !leader.Self {
		return nil, fault.NewNotLeader(leader.LeaderAddr)
	}
	// Without a transport, in tests, there is no trailer to set; then an answer is only less certain.
	_ = grpc.SetTrailer(ctx, metadata.Pairs(answeredKey, f.cfg.NodeID))
	return handler(ctx, request)
}

// call is one call that needs the leader.
type call struct {
	method  string
	request proto.Message
	answer  protoreflect.MessageType
	handler grpc.UnaryHandler
}

// answer tries until the leader answered, or waiting makes no sense any more.
func (f *Forwarder) answer(ctx context.Context, c call) (any, error) {
	giveUp := time.NewTimer(maxWait)
	defer giveUp.Stop()
	pause := firstPause
	for {
		leader, changed := f.cfg.Leadership()
		answer, again, err := f.try(ctx, c, leader, changed)
		if !again {
			return answer, err
		}
		retry := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			err = context.Cause(ctx)
		case <-giveUp.C:
			err = unreachable(leader, err)
		case <-changed:
			retry.Stop()
			continue
		case <-retry.C:
			pause = min(2*pause, maxPause)
			continue
		}
		retry.Stop()
		return nil, err
	}
}

func unreachable(leader store.Leadership, err error) error {
	if leader.LeaderAddr == "" || err == nil {
		return fault.New(fault.Unavailable, noLeader)
	}
	return fault.New(fault.Unavailable, "the leader of the swarm at %s does not answer: %s", leader.LeaderAddr, status.Convert(err).Message())
}

// errClosed ends calls that wait for a leader which this manager will not hear of any more.
var errClosed = fault.New(fault.Unavailable, "this manager stops")

// try sends the call to whoever leads. again says that the answer, if there is one, is not the call's.
func (f *Forwarder) try(ctx context.Context, c call, leader store.Leadership, changed <-chan struct{}) (answer any, again bool, err error) {
	switch {
	case f.isClosed():
		return nil, false, errClosed
	case leader.Self:
		answer, err := c.handler(ctx, c.request)
		return answer, fault.KindOf(err) == fault.NotLeader && err != nil, err
	case leader.LeaderAddr == "", leader.LeaderID == f.cfg.NodeID: // nobody, or this one is about to
		return nil, true, nil
	}
	conn, err := f.connect(leader)
	if err != nil {
		return nil, !errors.Is(err, errClosed), err
	}
	leading, stop := f.whileLeading(ctx, leader, changed)
	defer stop()
	reply := c.answer.New().Interface()
	var trailer metadata.MD
	err = conn.Invoke(f.outgoing(leading), c.method, c.request, reply, grpc.Trailer(&trailer))
	switch {
	case err == nil:
		return reply, false, nil
	case fault.KindOf(err) == fault.NotLeader, errors.Is(context.Cause(leading), errOtherLeader):
		return nil, true, err
	case len(trailer.Get(answeredKey)) > 0, ctx.Err() != nil: // F3, or the end of the caller's own time
		return nil, false, err
	default: // Canceled is a connection that was replaced under the call
		return nil, status.Code(err) == codes.Unavailable || status.Code(err) == codes.Canceled, err
	}
}

// errOtherLeader is the cause of the end of a call whose leader was replaced meanwhile.
var errOtherLeader = errors.New("another manager leads now")

// whileLeading returns a context that ends when another manager than leader leads. The caller must call stop.
func (f *Forwarder) whileLeading(ctx context.Context, leader store.Leadership, changed <-chan struct{}) (_ context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-ctx.Done():
				return
			case <-changed:
			}
			var now store.Leadership
			if now, changed = f.cfg.Leadership(); now.LeaderID != "" && now.LeaderID != leader.LeaderID {
				cancel(errOtherLeader)
			}
		}
	}()
	return ctx, func() {
		cancel(nil)
		<-done
	}
}

// outgoing returns the context of the call to the leader: with the caller's metadata that are ours, and who forwards.
func (f *Forwarder) outgoing(ctx context.Context) context.Context {
	incoming, _ := metadata.FromIncomingContext(ctx)
	md := metadata.MD{}
	for key, values := range f.cfg.Origin(ctx) {
		md.Set(key, values...)
	}
	md.Set(requestIDKey, incoming.Get(requestIDKey)...)
	md.Set(forwardedKey, f.cfg.NodeID)
	return metadata.NewOutgoingContext(ctx, md)
}

// connect returns the connection to the leader, which it keeps until another one leads or moved.
func (f *Forwarder) connect(leader store.Leadership) (*grpc.ClientConn, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return nil, errClosed
	}
	if f.conn != nil && f.to.LeaderAddr == leader.LeaderAddr && f.to.LeaderID == leader.LeaderID {
		return f.conn, nil
	}
	conn, err := f.cfg.Dial(leader.LeaderAddr, leader.LeaderID)
	if err != nil {
		return nil, fmt.Errorf("dial leader %s: %w", leader.LeaderID, err)
	}
	if f.conn != nil {
		// Calls over it go to a manager that does not lead any more, and are tried again.
		_ = f.conn.Close()
	}
	f.conn, f.to = conn, leader
	return conn, nil
}
