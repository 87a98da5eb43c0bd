package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os/user"
	"runtime/debug"
	"slices"
	"strconv"

	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/manager/authz"
)

// maxMessage bounds a message of gRPC: an object has 1 MiB at most, a list of them comes in one message.
const maxMessage = 64 << 20

// serveLocal serves the machine's own people on the unix socket until ctx ends.
func (d *Daemon) serveLocal(ctx context.Context, listener net.Listener) error {
	server := d.localServer(grpc.Creds(authz.SocketCredentials(adminGroup())))
	if err := notifyReady(); err != nil {
		d.logger.Warn("can't tell the service manager that this daemon is ready", "error", err)
	}
	return serve(ctx, server, listener)
}

// localServer makes the server for people, on the unix socket and over TCP.
func (d *Daemon) localServer(options ...grpc.ServerOption) *grpc.Server {
	server := grpc.NewServer(slices.Concat([]grpc.ServerOption{
		grpc.MaxRecvMsgSize(maxMessage),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: keepaliveTime, Timeout: keepaliveTime}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: keepaliveTime / 2}),
	}, d.interceptors(), options)...)
	api.RegisterDaemonServer(server, d)
	d.managed.offer(server, &api.Control_ServiceDesc)
	d.managed.offer(server, &api.Audit_ServiceDesc)
	d.managed.offer(server, &api.Tasks_ServiceDesc)
	d.managed.offer(server, &api.Learning_ServiceDesc)
	d.managed.offer(server, &api.Events_ServiceDesc)
	d.managed.offer(server, &api.Volumes_ServiceDesc)
	return server
}

// serve serves until ctx ends, and then lets no call linger: clients try again, elsewhere if they can. A server with a method that
// doesn't say who may call it doesn't serve at all.
func serve(ctx context.Context, server *grpc.Server, listener net.Listener) error {
	if err := authz.Check(server); err != nil {
		return errors.Join(err, listener.Close())
	}
	stop := context.AfterFunc(ctx, server.Stop)
	defer stop()
	if err := server.Serve(listener); err != nil && ctx.Err() == nil && !errors.Is(err, grpc.ErrServerStopped) {
		return fmt.Errorf("serve %s: %w", listener.Addr(), err)
	}
	return nil
}

// adminGroup returns the id of the group that may use the socket beside root.
func adminGroup() uint32 {
	found, err := user.LookupGroup(group)
	if err != nil {
		return authz.NoGroup
	}
	gid, err := strconv.ParseUint(found.Gid, 10, 32)
	if err != nil {
		return authz.NoGroup
	}
	return uint32(gid)
}

// interceptors stand before every handler of both servers: errors become statuses, then who may call is decided, then whether the
// node is locked, then a call that needs the leader goes there, and the audit log has those that it should.
func (d *Daemon) interceptors() []grpc.ServerOption {
	options := []grpc.ServerOption{
		grpc.ChainUnaryInterceptor(func(ctx context.Context, request any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (_ any, err error) {
			defer func() { err = d.outcome(info.FullMethod, recover(), err) }()
			return handler(ctx, request)
		}),
		grpc.ChainStreamInterceptor(func(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) (err error) {
			defer func() { err = d.outcome(info.FullMethod, recover(), err) }()
			return handler(srv, stream)
		}),
	}
	options = append(options, d.authorizer.ServerOptions()...)
	options = append(options, d.unlessLocked()...)
	return append(options, grpc.ChainUnaryInterceptor(d.managed.forward), grpc.ChainStreamInterceptor(d.managed.record))
}

// outcome is what a client gets for a call: the status of its error, and an internal error for a panic. What the client is
// not told is logged.
func (d *Daemon) outcome(method string, panicked any, err error) error {
	if panicked != nil {
		d.logger.Error("a handler panicked", "method", method, "panic", fmt.Sprint(panicked), "stack", string(debug.Stack()))
		return fault.Status(fault.New(fault.Internal, "panic in %s", method))
	}
	if err != nil && fault.KindOf(err) == fault.Internal {
		d.logger.LogAttrs(context.Background(), slog.LevelError, "a call failed", slog.String("method", method), slog.Any("error", err))
	}
	return fault.Status(err)
}
