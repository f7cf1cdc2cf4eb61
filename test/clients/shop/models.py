"""The models of the Django test."""

from django.contrib.postgres.fields import ArrayField
from django.db import models


class Tenant(models.Model):
    name = models.TextField(unique=True)


class Customer(models.Model):
    tenant = models.ForeignKey(Tenant, models.CASCADE)
    email = models.EmailField()
    ssn = models.CharField(max_length=11, null=True)
    born = models.DateField(null=True)
    balance = models.DecimalField(max_digits=12, decimal_places=2, default=0)
    profile = models.JSONField(default=dict)
    labels = ArrayField(models.TextField(), default=list)
    active = models.BooleanField(default=True)
    visits = models.IntegerField(default=0)
    seen = models.DateTimeField(null=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["tenant", "email"], name="one_address")]


class Order(models.Model):
    customer = models.ForeignKey(Customer, models.CASCADE, related_name="orders")
    what = models.TextField()
