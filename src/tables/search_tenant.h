/*-------------------------------------------------------------------------
 *
 * search_tenant.h
 *	  What conditions say of the tenant of a row.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ENVELOPE_SEARCH_TENANT_H
#define ENVELOPE_SEARCH_TENANT_H

#include "tables/search_column.h"

/* A list of conditions that are ANDed */
typedef struct Scope
{
	QueryLevel *level;
	List	   *equalities;		/* OpExpr, from this list and those around it */
	List	   *memberships;	/* ScalarArrayOpExpr, the same */
	List	   *general;		/* more of the equalities, for what depends on
								 * no row */
	Relids		relids;			/* whose columns may be used; NULL for all */
	List	   *added;			/* conditions */
} Scope;

extern bool search_is_integer(Oid type);
extern bool search_is_equality(Oid operator, Oid collation, Oid left, Oid right);
extern List *search_equalities(Node *quals);
extern List *search_memberships(Node *quals);
extern Node *search_other_side(const OpExpr *equality, const Node *side);
extern bool search_is_constant(const Node *node);
extern bool search_may_use(const Scope *scope, const Node *node, const Var *column);
extern Expr *search_tenant(const Scope *scope, const Var *column,
						   const FoundColumn *found, const Protection *protection);
extern Expr *search_tenants(const Scope *scope, const Var *column,
							const FoundColumn *found, const Protection *protection);

#endif							/* ENVELOPE_SEARCH_TENANT_H */
