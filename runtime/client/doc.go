// Package client talks to the container supervisor of a node.
//
//	c, err := client.Dial(ctx, "/run/skep/runtime.sock")
//	defer c.Close()
//	state, err := c.Create(ctx, client.Request{...})  // everything is ready, the process waits
//	...                                               // configure its network through /proc/<state.Pid>/ns/net
//	err = c.Start(ctx, id)                            // returns when the program runs
//	events, err := c.Events(ctx)                      // running, exited, ...
//	err = c.Delete(ctx, id)                           // forget it, when its end has been dealt with
//
// Containers do not depend on their client: it may end and come back, and finds every container and every exit that
// was not deleted.
//
// A network namespace that is new has its loopback interface up, and nothing else.
//
// Errors: errors.Is tells ErrNotFound, ErrExists, ErrInvalid, ErrState and ErrStart; anything else is the machine's or
// the connection's. When ctx ends during a call, the call may still be carried out: State tells.
//
// A Client is safe for concurrent use; calls run in parallel, each on a connection of its own.
package client
