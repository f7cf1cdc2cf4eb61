/*-------------------------------------------------------------------------
 *
 * refuse.c
 *	  What cannot be protected, why, and what to do about it.
 *
 * All of it is looked at before anything is changed.  What concerns indexes is
 * in term_index.c, and what concerns rows in rewrite.c.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/sysattr.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/catalog.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_type.h"
#include "commands/defrem.h"
#include "executor/spi.h"
#include "nodes/nodes.h"
#include "optimizer/optimizer.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/resowner.h"

#include "compat.h"
#include "keys/catalog.h"
#include "settings.h"
#include "tables/protect.h"
#include "tables/protection.h"
#include "tables/seal.h"
#include "tables/value.h"

/* Something of the catalogs that uses a column in a way that it cannot be used in */
typedef struct ColumnRule
{
	const char *query;			/* names what uses column a of relation r */
	const char *detail;			/* says so, of its name */
	const char *hint;
} ColumnRule;

/* A query begins with this: the column, in the table and its partitions */
#define EACH_COLUMN \
	" FROM pg_catalog.pg_attribute a WHERE a.attrelid = ANY ('%s'::pg_catalog.oid[]) AND a.attname = %s"

static const ColumnRule column_rules[] = {
	{
		"SELECT c.conname FROM pg_catalog.pg_constraint c, each a WHERE c.contype = 'f'"
		" AND (c.conrelid = a.attrelid AND a.attnum = ANY (c.conkey)"
		" OR c.confrelid = a.attrelid AND a.attnum = ANY (c.confkey))",
		"Foreign key \"%s\" uses it.",
		"Drop the foreign key: a sealed value cannot be compared with another table's."
	},
	{
		"SELECT c.conname FROM pg_catalog.pg_constraint c, each a WHERE c.contype = 'x'"
		" AND c.conrelid = a.attrelid AND a.attnum = ANY (c.conkey)",
		"Exclusion constraint \"%s\" uses it.",
		"Drop the constraint."
	},
	{
		/* A table cannot be without the columns of its partition key. */
		"SELECT d.objid::pg_catalog.regclass FROM pg_catalog.pg_depend d, each a"
		" WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = a.attrelid"
		" AND d.objsubid = a.attnum AND d.refclassid = d.classid AND d.refobjid = a.attrelid"
		" AND d.refobjsubid = 0 AND d.deptype = 'i'",
		"It is in the partition key of \"%s\".",
		"Partition by another column."
	},
	{
		"SELECT g.attname FROM pg_catalog.pg_attrdef f"
		" JOIN pg_catalog.pg_attribute g ON g.attrelid = f.adrelid AND g.attnum = f.adnum"
		" JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass"
		" AND d.objid = f.oid AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass"
		" AND d.refobjid = f.adrelid, each a"
		" WHERE f.adrelid = a.attrelid AND g.attgenerated <> '' AND g.attnum <> a.attnum"
		" AND d.refobjsubid IN (a.attnum, 0)",
		"Column \"%s\" is generated from it.",
		"Drop the generated column, or compute it where it is read."
	},
	{
		"SELECT p.pubname FROM pg_catalog.pg_publication_rel r"
		" JOIN pg_catalog.pg_publication p ON p.oid = r.prpubid"
		" JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_publication_rel'::pg_catalog.regclass"
		" AND d.objid = r.oid AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass, each a"
		" WHERE d.refobjid = a.attrelid AND d.refobjsubid = a.attnum",
		"Publication \"%s\" has it in its column list or row filter.",
		"Take the table out of the publication, and add it again without."
	},
	{
		"SELECT s.stxname FROM pg_catalog.pg_statistic_ext s"
		" JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_statistic_ext'::pg_catalog.regclass"
		" AND d.objid = s.oid AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass, each a"
		" WHERE d.refobjid = a.attrelid AND d.refobjsubid = a.attnum",
		"Statistics \"%s\" hold its values.",
		"Drop the statistics."
	},
	{
		"SELECT t.tgname FROM pg_catalog.pg_trigger t, each a"
		" WHERE t.tgrelid = a.attrelid AND NOT t.tgisinternal"
		" AND (t.tgname::pg_catalog.text COLLATE \"C\") > '" SEAL_TRIGGER "'"
		" AND t.tgtype::pg_catalog.int4 & 3 = 3",
		"Trigger \"%s\" would be called after the one that seals.",
		"Rename the trigger: triggers are called in the order of their names."
	},
};

/* Materialized views, of which there may be leave to have some */
static const ColumnRule copies_rule = {
	"SELECT r.ev_class::pg_catalog.regclass FROM pg_catalog.pg_rewrite r"
	" JOIN pg_catalog.pg_class c ON c.oid = r.ev_class AND c.relkind = 'm'"
	" JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass"
	" AND d.objid = r.oid AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass, each a"
	" WHERE d.refobjid = a.attrelid AND d.refobjsubid = a.attnum",
	"Materialized view \"%s\" holds a copy of its values.",
	"Drop it, or set envelope.allow_plaintext_copies."
};

pg_noreturn static void
refuse(const ProtectPlan *plan, const ProtectColumn *column, const char *detail,
	   const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("column \"%s\" of table \"%s\" cannot be protected",
					column->carrier, plan->name),
			 errdetail("%s", detail),
			 hint ? errhint("%s", hint) : 0));
}

/* The oids of a plan's tables, as an array's text */
static char *
relids_text(const ProtectPlan *plan)
{
	StringInfoData text;
	ListCell   *cell;

	initStringInfo(&text);
	foreach(cell, plan->relids)
		appendStringInfo(&text, "%s%u", text.len ? "," : "{", lfirst_oid(cell));
	appendStringInfoChar(&text, '}');
	return text.data;
}

static void
apply_rule(const ProtectPlan *plan, const ProtectColumn *column, const ColumnRule *rule)
{
	char	   *used_by = protect_query(psprintf("WITH each AS (SELECT a.attrelid, a.attnum" EACH_COLUMN ") %s LIMIT 1",
												 relids_text(plan),
												 quote_literal_cstr(column->carrier),
												 rule->query));

	if (used_by)
		refuse(plan, column, psprintf(rule->detail, used_by), rule->hint);
}

/* A partition that is not in this database; NULL where all are */
static char *
foreign_partition(const ProtectPlan *plan)
{
	ListCell   *cell;

	foreach(cell, plan->relids)
	{
		if (get_rel_relkind(lfirst_oid(cell)) == RELKIND_FOREIGN_TABLE)
			return get_rel_name(lfirst_oid(cell));
	}
	return NULL;
}

/* Refuse (0A000, 42809) a table that cannot have protected columns. */
void
refuse_table(Relation rel, const ProtectPlan *plan)
{
	char		kind = rel->rd_rel->relkind;
	const char *reason = NULL;
	const char *hint = NULL;

	if (kind != RELKIND_RELATION && kind != RELKIND_PARTITIONED_TABLE)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("\"%s\" is not a table", plan->name)));
	if (rel->rd_rel->relispartition)
	{
		reason = "It is a partition.";
		hint = "Protect the partitioned table.";
	}
	else if (has_superclass(plan->relid) ||
			 (kind == RELKIND_RELATION && has_subclass(plan->relid) &&
			  list_length(find_inheritance_children(plan->relid, NoLock)) > 0))
	{
		reason = "It inherits, or is inherited from.";
		hint = "Use partitioning, or end the inheritance with ALTER TABLE ... NO INHERIT.";
	}
	else if (OidIsValid(rel->rd_rel->reloftype))
	{
		reason = "It is a typed table.";
		hint = "Make it an ordinary one with ALTER TABLE ... NOT OF.";
	}
	else if (IsCatalogNamespace(RelationGetNamespace(rel)) ||
			 RelationGetNamespace(rel) == get_namespace_oid(ENVELOPE_SCHEMA, false))
		reason = "It belongs to the server, or to this extension.";
	else if (foreign_partition(plan))
	{
		reason = psprintf("Partition \"%s\" is a foreign table.", foreign_partition(plan));
		hint = "Detach it: its rows are another server's to keep.";
	}
	if (reason)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("table \"%s\" cannot be protected", plan->name),
				 errdetail("%s", reason),
				 hint ? errhint("%s", hint) : 0));
}

/* Refuse (0A000) a tenant column that cannot say whose key seals a row. */
static void
refuse_tenant(const ProtectPlan *plan, Relation rel)
{
	AttrNumber	attnum = get_attnum(plan->relid, plan->tenant);
	Form_pg_attribute attr;
	const char *reason = NULL;

	if (attnum <= 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_COLUMN),
				 errmsg("column \"%s\" of table \"%s\" does not exist",
						plan->tenant, plan->name)));
	attr = TupleDescAttr(RelationGetDescr(rel), attnum - 1);
	if (!value_is_tenant_type(attr->atttypid))
		reason = "Its type is not text, varchar, uuid or an integer.";
	else if (attr->attgenerated)
		reason = "It is generated, and not there yet when a row is sealed.";
	else if (OidIsValid(attr->attcollation) &&
			 !get_collation_isdeterministic(attr->attcollation))
		reason = "Its collation is not deterministic.";
	if (reason)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("column \"%s\" of table \"%s\" cannot be the tenant column",
						plan->tenant, plan->name),
				 errdetail("%s", reason)));
}

/* Would a domain refuse the NULL that is stored in its place? */
static bool
domain_refuses_null(Oid type)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	volatile bool refuses = false;

	if (get_typtype(type) != TYPTYPE_DOMAIN)
		return false;
	BeginInternalSubTransaction(NULL);
	PG_TRY();
	{
		domain_check((Datum) 0, true, type, NULL, NULL);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		refuses = true;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	return refuses;
}

/* Refuse what is about a column alone. */
static void
refuse_column(const ProtectPlan *plan, Relation rel, const ProtectColumn *column)
{
	Form_pg_attribute attr = TupleDescAttr(RelationGetDescr(rel), column->attnum - 1);
	Oid			base = getBaseType(attr->atttypid);
	const char *added[] = {column->sidecar, column->term};

	if (strcmp(column->carrier, plan->tenant) == 0)
		refuse(plan, column, "It is the tenant column, which says whose key seals a row.", NULL);
	if (attr->attgenerated)
		refuse(plan, column, "It is generated.", "Protect what it is generated from, and drop it.");
	if (attr->attidentity)
		refuse(plan, column, "It is an identity column.", NULL);
	if (type_is_rowtype(base) || base == MONEYOID || base == XMLOID ||
		get_typtype(base) == TYPTYPE_PSEUDO)
		refuse(plan, column,
			   psprintf("What type %s looks like depends on the session, or it has parts of its own.",
						format_type_be(base)),
			   "Use text, numeric or jsonb.");
	if (domain_refuses_null(attr->atttypid))
		refuse(plan, column, psprintf("Domain %s does not allow NULL.", format_type_be(attr->atttypid)),
			   "Move the constraint from the domain to the column.");
	for (int i = 0; i < lengthof(added); i++)
	{
		if (added[i] && get_attnum(plan->relid, added[i]) != InvalidAttrNumber)
			refuse(plan, column, psprintf("The table has a column \"%s\" already.", added[i]),
				   "Rename that column.");
	}
	if (column->term)
	{
		const char *reason = value_unsearchable(attr->atttypid, attr->attcollation);

		if (reason)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("column \"%s\" of table \"%s\" cannot be searchable",
							column->carrier, plan->name),
					 errdetail("It cannot be found by a term: %s.", reason)));
		term_leak_check(plan, column, attr->atttypid);
	}
}

/* Refuse constraints that name the whole row. */
static void
refuse_whole_rows(const ProtectPlan *plan, Oid relid)
{
	Relation	rel = table_open(relid, NoLock);
	TupleConstr *constraints = RelationGetDescr(rel)->constr;

	for (int i = 0; constraints && i < constraints->num_check; i++)
	{
		Bitmapset  *attributes = NULL;

		pull_varattnos(stringToNode(constraints->check[i].ccbin), 1, &attributes);
		if (bms_is_member(0 - FirstLowInvalidHeapAttributeNumber, attributes))
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("table \"%s\" cannot be protected", plan->name),
					 errdetail("Constraint \"%s\" looks at the whole row.",
							   constraints->check[i].ccname),
					 errhint("Name the columns in it.")));
	}
	table_close(rel, NoLock);
}

/*
 * Refuse columns that cannot be protected.  Between protect_begin and
 * protect_end.
 */
void
refuse_columns(const ProtectPlan *plan)
{
	Relation	rel = table_open(plan->relid, NoLock);
	ListCell   *cell;

	refuse_tenant(plan, rel);
	foreach(cell, plan->columns)
	{
		ProtectColumn *column = lfirst(cell);

		if (!column->is_new)
			continue;
		refuse_column(plan, rel, column);
		for (int i = 0; i < lengthof(column_rules); i++)
			apply_rule(plan, column, &column_rules[i]);
		if (!envelope_allow_plaintext_copies)
			apply_rule(plan, column, &copies_rule);
	}
	table_close(rel, NoLock);
	foreach(cell, plan->relids)
		refuse_whole_rows(plan, lfirst_oid(cell));
}
