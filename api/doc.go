// Package api is the contract between Skep's parts: the objects of the cluster store, and the services that managers,
// agents and the daemon serve. All of it but this comment is generated from proto/, where the documentation is.
//
// Every RPC carries an [Access] rule that says who may call it; see proto/skep/v1/access.proto. Messages that can hold a
// secret print and log themselves as "[redacted]".
package api
